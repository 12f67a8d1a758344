#include "eval/corpus_bank.h"

#include "engine/shard_driver.h"
#include "engine/splitter.h"

namespace msa::eval {
namespace {

// One commit: few enough tokens that an interruption loses little, enough that segments stay few.
constexpr int64_t kCommitTokens = 128 << 10;

/// "ID" of "ID#3"; the whole where it is no part.
std::string_view without_part(std::string_view external_id) {
  const size_t mark = external_id.rfind('#');
  if (mark == std::string_view::npos || mark + 1 == external_id.size()) return external_id;
  const bool is_part = external_id.find_first_not_of("0123456789", mark + 1) == std::string_view::npos;
  return is_part ? external_id.substr(0, mark) : external_id;
}

}  // namespace

BankBuilder::BankBuilder(Context& context, const Model& model, Bank& bank, ShardDriver* ranks)
    : model_(model),
      bank_(bank),
      writer_(context, model, bank, ranks),
      commit_tokens_(kCommitTokens * (ranks == nullptr ? 1 : ranks->size())) {
  for (const DocumentRecord& record : bank.list()) {
    if (record.name_space.empty()) known_.emplace(record.external_id, record.content_hash);
    bank_tokens_ += record.n_tokens;
  }
}

int64_t BankBuilder::tokens_of(const std::string& text) const {
  const auto tokens = model_.tokenizer().encode(text);
  return static_cast<int64_t>(model_.prompts().document(bank_.size() + 1, tokens).tokens.size());
}

bool BankBuilder::add(const std::string& external_id, const std::string& text) {
  const auto parts = split_text(model_.tokenizer(), text, kPartTokens, kOverlapTokens);
  bool is_new = false;
  for (const TextPart& part : parts) {
    const std::string suffix = part.count > 1 ? "#" + std::to_string(part.index + 1) : "";
    is_new = add_part(external_id + suffix, part.text) || is_new;
  }
  return is_new;
}

bool BankBuilder::add_part(const std::string& external_id, const std::string& text) {
  const auto [known, is_new] = known_.emplace(external_id, content_hash(text));
  if (!is_new) {
    if (known->second == content_hash(text)) return false;
    throw Error("the bank has another text under this external id", external_id, "give --bank a folder of its own");
  }
  texts_.push_back(model_.tokenizer().encode(text));
  pending_tokens_ += static_cast<int64_t>(model_.prompts().document(bank_.size() + 1, texts_.back()).tokens.size());
  inputs_.push_back({text, external_id, "", ""});
  if (pending_tokens_ >= commit_tokens_) commit();
  return true;
}

void BankBuilder::commit() {
  if (inputs_.empty()) return;
  const std::vector<DocumentId> ids = bank_.reserve_ids(static_cast<int64_t>(inputs_.size()));
  std::vector<DocumentTokens> documents;
  for (size_t i = 0; i < ids.size(); ++i) documents.push_back(model_.prompts().document(ids[i], texts_[i]).tokens);
  const AddResult result = writer_.add(ids, inputs_, documents);
  MSA_CHECK(result.committed());
  for (const DocumentTokens& d : documents) bank_tokens_ += static_cast<int64_t>(d.size());
  added_ += static_cast<int64_t>(ids.size());
  inputs_.clear();
  texts_.clear();
  pending_tokens_ = 0;
}

BankReport add_corpus(Context& context, const Model& model, Bank& bank, const BeirSet& set, const Progress& progress,
                      ShardDriver* ranks) {
  BankBuilder builder(context, model, bank, ranks);
  const auto total = static_cast<int64_t>(set.documents.size());
  for (int64_t i = 0; i < total; ++i) {
    const BeirDocument& document = set.documents[static_cast<size_t>(i)];
    builder.add(document.id, document.full_text());
    if (progress) progress(i + 1, total);
  }
  builder.commit();
  const BankStatistics statistics = bank.statistics();
  return {statistics.documents,      statistics.chunks,
          statistics.tokens,         statistics.key_bytes + statistics.content_bytes,
          builder.documents_added(), builder.encode_ms()};
}

DocumentIndex DocumentIndex::of(const Bank& bank, const Snapshot& snapshot, const BeirSet& set) {
  DocumentIndex index;
  std::unordered_map<std::string, int32_t> by_id;
  for (const BeirDocument& d : set.documents) {
    by_id.emplace(d.id, static_cast<int32_t>(index.ids.size()));
    index.ids.push_back(d.id);
  }
  index.n_corpus = index.ids.size();
  for (const DocumentRecord& record : bank.list()) {
    auto found = record.name_space.empty() ? by_id.find(record.external_id) : by_id.end();
    if (found == by_id.end() && record.name_space.empty()) {
      found = by_id.find(std::string(without_part(record.external_id)));
    }
    if (found == by_id.end()) {
      index.of_bank.emplace(record.id, static_cast<int32_t>(index.ids.size()));
      index.ids.push_back(record.external_id.empty() ? "bank-" + std::to_string(record.id) : record.external_id);
    } else {
      index.of_bank.emplace(record.id, found->second);
    }
  }
  for (const auto& segment : snapshot.segments) {
    for (const DocumentId id : segment->ids()) {
      const auto found = index.of_bank.find(id);
      index.of_slot.push_back(found == index.of_bank.end() ? -1 : found->second);
    }
  }
  return index;
}

}  // namespace msa::eval
