#include "engine/document_adder.h"

#include <fmt/format.h>

#include <nlohmann/json.hpp>
#include <random>

#include "engine/shard_driver.h"
#include "engine/splitter.h"

namespace msa {
namespace {

// One commit of the bank: few enough tokens that an interruption loses little, enough that segments stay few.
constexpr int64_t kCommitTokens = 128 << 10;

/// Of a new bank. By chance apart from other banks' ids, since a document keeps its vectors only where its id is free;
/// small, since models learn ids of few digits.
DocumentId draw_first_id() {
  constexpr DocumentId kLastFirstId = 5000;
  return 1 + static_cast<DocumentId>(std::random_device()()) % kLastFirstId;
}

}  // namespace

int DocumentAdder::most_tokens(const Model& model) {
  return model.config().max_positions - 64;  // the template around the text
}

DocumentAdder::DocumentAdder(Context& context, const Model& model, Bank& bank, const AdderOptions& options,
                             ShardDriver* ranks)
    : model_(model),
      bank_(bank),
      options_(options),
      writer_(context, model, bank, ranks),
      commit_tokens_(kCommitTokens * (ranks == nullptr ? 1 : ranks->size())) {
  if (options.max_tokens > most_tokens(model)) {
    throw Error(fmt::format("{} tokens do not fit into the model's context; at most {} do", options.max_tokens,
                            most_tokens(model)),
                "--max-tokens", "choose a smaller number");
  }
  edit_.replace = options.replace;
  bank_.skip_ids_below(options.first_id.value_or(bank.next_id() == 1 ? draw_first_id() : 1));
}

int DocumentAdder::take(const NewDocument& document, const Progress& progress) {
  const auto parts = split_text(model_.tokenizer(), document.text, options_.max_tokens, options_.overlap);
  std::set<std::string> names;
  for (const TextPart& part : parts) {
    std::string external_id = document.external_id;
    if (part.count > 1) external_id += "#" + std::to_string(part.index + 1);
    names.insert(external_id);
    take_part(std::move(external_id), part.text, document.metadata_json);
  }
  if (options_.replace) remove_other_parts(document.external_id, names);
  if (pending_tokens_ >= commit_tokens_) commit(progress);
  return static_cast<int>(parts.size());
}

void DocumentAdder::commit(const Progress& progress) {
  if (inputs_.empty() && edit_.remove.empty()) return;
  const std::vector<DocumentId> ids = bank_.reserve_ids(static_cast<int64_t>(inputs_.size()));
  std::vector<DocumentTokens> documents;
  for (size_t i = 0; i < inputs_.size(); ++i) {
    documents.push_back(model_.prompts().document(ids[i], texts_[i]).tokens);
  }
  const AddResult result = writer_.add(ids, inputs_, documents, edit_, progress);
  if (!result.gone.empty()) {
    throw DocumentGone("the document was removed meanwhile, nothing is stored", std::to_string(result.gone[0]),
                       "add the text as a new document");
  }
  MSA_CHECK(result.committed());
  for (const DocumentTokens& d : documents) report_.tokens += static_cast<int64_t>(d.size());
  report_.added.insert(report_.added.end(), ids.begin(), ids.end());
  inputs_.clear();
  edit_.remove.clear();
  edit_.only_if_live.clear();
  texts_.clear();
  pending_ids_.clear();
  pending_tokens_ = 0;
}

AddReport DocumentAdder::report() const {
  AddReport report = report_;
  report.encode_ms = writer_.encode_ms();
  report.store_ms = writer_.store_ms();
  return report;
}

void DocumentAdder::take_part(std::string external_id, const std::string& text, const std::string& metadata) {
  if (!external_id.empty() && pending_ids_.contains(external_id)) {
    throw Error("the external id comes twice in the input", external_id, "give every document its own id");
  }
  if (keeps(external_id, text, metadata)) return;
  texts_.push_back(model_.tokenizer().encode(text));
  pending_tokens_ += static_cast<int64_t>(texts_.back().size());
  pending_ids_.insert(external_id);
  inputs_.push_back({text, std::move(external_id), options_.name_space, metadata});
}

/// True when the bank has this text under this external id: nothing is encoded, at most the metadata changes or a
/// removed document comes back. Another text under it is replaced if that was asked for, else the user's to resolve.
bool DocumentAdder::keeps(const std::string& external_id, const std::string& text, const std::string& metadata) {
  if (external_id.empty()) return false;
  const std::string hash = content_hash(text);
  const auto known = bank_.find_by_external_id(options_.name_space, external_id);
  if (!edit_.only_if_live.empty() && (!known || known->id != edit_.only_if_live.front())) return false;
  if (!known) {
    const auto removed = bank_.find_removed(options_.name_space, external_id, hash);
    if (!removed || !bank_.reinstate(removed->id, metadata)) return false;
    report_.reinstated.push_back(removed->id);
    return true;
  }
  if (known->content_hash == hash) {
    using Json = nlohmann::ordered_json;
    if (!options_.replace || Json::parse(known->metadata_json) == Json::parse(metadata)) {
      ++report_.unchanged;
    } else if (bank_.change_metadata(known->id, metadata)) {
      report_.reinstated.push_back(known->id);
    } else {
      return false;  // removed meanwhile
    }
    return true;
  }
  if (!options_.replace) {
    throw DocumentConflict(
        "the bank already has another text under this external id, as document " + std::to_string(known->id),
        external_id, "replace it with --replace, or remove it first: msa rm " + std::to_string(known->id));
  }
  report_.replaced.push_back(known->id);
  return false;
}

/// Parts of a former version that the new one does not have.
void DocumentAdder::remove_other_parts(const std::string& name, const std::set<std::string>& names) {
  if (name.empty()) return;
  for (const DocumentRecord& part : bank_.find_parts(options_.name_space, name)) {
    if (names.contains(part.external_id)) continue;
    edit_.remove.push_back(part.id);
    report_.replaced.push_back(part.id);
  }
}

}  // namespace msa
