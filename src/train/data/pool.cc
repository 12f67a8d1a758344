#include "train/data/pool.h"

#include "core/error.h"

namespace msa::train {
namespace {

int64_t power_of_ten(int exponent) {
  int64_t value = 1;
  for (int i = 0; i < exponent; ++i) value *= 10;
  return value;
}

uint64_t key(int32_t dataset, int32_t document) {
  return static_cast<uint64_t>(dataset) << 32 | static_cast<uint32_t>(document);
}

}  // namespace

Pool::Pool(const TrainingData& data, const PromptTemplate& prompts, int id_digits, RandomStream& random)
    : data_(data),
      prompts_(prompts),
      id_digits_(id_digits),
      random_(random),
      wrapping_tokens_(static_cast<int64_t>(prompts.document(power_of_ten(id_digits) - 1, {}).tokens.size())) {
  sequences_.append(prompts.head().tokens);
}

bool Pool::add(int32_t dataset, std::span<const int32_t> documents, int64_t budget) {
  const Dataset& set = data_.datasets[static_cast<size_t>(dataset)];
  int64_t needed = 0;
  for (const int32_t d : documents) {
    if (find(dataset, d) < 0) needed += static_cast<int64_t>(set.documents[d].size()) + wrapping_tokens_;
  }
  if (needed == 0) return true;
  if (tokens() + needed > budget) return false;
  for (const int32_t d : documents) {
    if (!index_.emplace(key(dataset, d), size()).second) continue;
    texts_[set.text_hashes[static_cast<size_t>(d)]].push_back(size());
    entries_.push_back({dataset, d, draw_id()});
    sequences_.append(prompts_.document(entries_.back().id, set.documents[d]).tokens);
  }
  return true;
}

int64_t Pool::draw_id() {
  const int64_t count = power_of_ten(id_digits_) - 1;
  if (static_cast<int64_t>(ids_.size()) == count) {
    throw Error("the pool has more documents than the " + std::to_string(count) +
                    " ids of id_digits = " + std::to_string(id_digits_),
                "data.id_digits", "raise id_digits, or lower pool_tokens and extra_tokens");
  }
  constexpr int kTries = 4;  // a length whose ids are nearly used up gives way to all lengths
  for (int i = 0;; ++i) {
    const int digits = i < kTries ? 1 + static_cast<int>(random_.below(id_digits_)) : id_digits_;
    const int64_t least = i < kTries ? power_of_ten(digits - 1) : 1;
    const int64_t id = least + random_.below(power_of_ten(digits) - least);
    if (ids_.insert(id).second) return id;
  }
}

int32_t Pool::find(int32_t dataset, int32_t document) const {
  const auto it = index_.find(key(dataset, document));
  return it == index_.end() ? -1 : it->second;
}

std::span<const int32_t> Pool::same_text(uint64_t text_hash) const {
  const auto it = texts_.find(text_hash);
  return it == texts_.end() ? std::span<const int32_t>() : it->second;
}

std::span<const int32_t> Pool::text(int32_t i) const {
  const Entry& entry = (*this)[i];
  return data_.datasets[static_cast<size_t>(entry.dataset)].documents[entry.document];
}

}  // namespace msa::train
