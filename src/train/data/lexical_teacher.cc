#include "train/data/lexical_teacher.h"

#include <algorithm>

namespace msa::train {

LexicalTeacher::LexicalTeacher(const std::vector<Dataset>& datasets, const std::vector<TeacherVectors>& vectors,
                               const Tokenizer& tokenizer)
    : starts_{0} {
  std::vector<std::span<const int32_t>> texts;
  for (size_t s = 0; s < datasets.size(); ++s) {
    const TokenArrays& documents = datasets[s].documents;
    for (int64_t d = 0; !vectors[s].empty() && d < documents.size(); ++d) texts.push_back(documents[d]);
    starts_.push_back(static_cast<int64_t>(texts.size()));
  }
  const auto text_of = [&](int64_t i) {
    return tokenizer.decode(texts[static_cast<size_t>(i)], /*skip_special=*/false);
  };
  index_ = std::make_unique<Bm25Index>(static_cast<int64_t>(texts.size()), text_of);
}

LexicalTeacher::Pool::Pool(const LexicalTeacher& teacher, std::span<const std::pair<int32_t, int32_t>> documents)
    : teacher_(teacher), places_(static_cast<size_t>(teacher.index_->documents()), -1) {
  for (size_t i = 0; i < documents.size(); ++i) {
    const auto [set, document] = documents[i];
    const int64_t first = teacher.starts_[static_cast<size_t>(set)],
                  end = teacher.starts_[static_cast<size_t>(set) + 1];
    if (first < end) places_[static_cast<size_t>(first + document)] = static_cast<int32_t>(i);
  }
}

void LexicalTeacher::Pool::score(std::string_view question, std::span<float> out) {
  std::fill(out.begin(), out.end(), 0.0f);
  teacher_.index_->add_scores(question, places_, out, scratch_);
  const float largest = out.empty() ? 0 : *std::max_element(out.begin(), out.end());
  if (largest <= 0) return;
  for (float& score : out) score /= largest;
}

}  // namespace msa::train
