#include <fmt/format.h>

#include <iostream>
#include <optional>
#include <random>
#include <set>
#include <utility>

#include "cli/commands.h"
#include "cli/progress.h"
#include "cli/sources.h"
#include "core/interrupt.h"
#include "engine/bank_writer.h"
#include "engine/shard_driver.h"
#include "engine/splitter.h"

namespace msa::cli {
namespace {

// One commit of the bank: few enough tokens that an interruption loses little, enough that segments stay few.
constexpr int64_t kCommitTokens = 128 << 10;

struct Options {
  std::vector<std::string> paths;
  std::string name_space;
  std::vector<std::string> metadata;  // k=v
  std::string user, time;
  std::vector<std::string> tags;
  std::string id;
  bool replace = false;
  std::optional<DocumentId> first_id;
  int64_t limit = -1;
  int max_tokens = 512;
  int overlap = 64;
};

std::string metadata_object(const Options& o) {
  Json object = Json::object();
  if (!o.user.empty()) object["user"] = o.user;
  if (!o.tags.empty()) object["tags"] = o.tags;
  if (!o.time.empty()) object["time"] = o.time;
  for (const std::string& pair : o.metadata) {
    const size_t equals = pair.find('=');
    if (equals == 0 || equals == std::string::npos) {
      throw Error("'" + pair + "' is not of the form key=value", "--meta", "for instance: --meta author=Ada");
    }
    object[pair.substr(0, equals)] = pair.substr(equals + 1);
  }
  return object.dump(-1, ' ', false, Json::error_handler_t::replace);
}

/// Of a new bank. By chance apart from other banks' ids, since a document keeps its vectors only where its id is free;
/// small, since models learn ids of few digits.
DocumentId draw_first_id() {
  constexpr DocumentId kLastFirstId = 5000;
  return 1 + static_cast<DocumentId>(std::random_device()()) % kLastFirstId;
}

/// Collects documents, encodes and commits them in batches.
class Adder {
 public:
  Adder(Context& context, const Model& model, Bank& bank, const Options& options, ShardDriver* ranks)
      : model_(model),
        bank_(bank),
        options_(options),
        writer_(context, model, bank, ranks),
        commit_tokens_(kCommitTokens * (ranks == nullptr ? 1 : ranks->size())),
        progress_("encoding", 0, "tok") {
    edit_.replace = options.replace;
    bank_.skip_ids_below(options.first_id.value_or(bank.next_id() == 1 ? draw_first_id() : 1));
  }

  /// Takes one document; returns false when the user interrupted or the limit is reached.
  bool take(SourceDocument&& document) {
    if (interrupted() || (options_.limit >= 0 && taken_ == options_.limit)) return false;
    ++taken_;
    const auto parts = split_text(model_.tokenizer(), document.text, options_.max_tokens, options_.overlap);
    if (parts.size() > 1) {
      ++split_;
      std::cerr << fmt::format("{}: split into {} parts of at most {} tokens, {} of them overlapping\n",
                               document.external_id, parts.size(), options_.max_tokens, options_.overlap);
    }
    std::set<std::string> names;
    for (const TextPart& part : parts) {
      std::string external_id = document.external_id;
      if (part.count > 1) external_id += "#" + std::to_string(part.index + 1);
      names.insert(external_id);
      take_part(std::move(external_id), part.text, document.metadata_json);
    }
    if (options_.replace) remove_other_parts(document.external_id, names);
    if (pending_tokens_ >= commit_tokens_) commit();
    return true;
  }

  void commit() {
    if (inputs_.empty() && edit_.remove.empty()) return;
    const std::vector<DocumentId> ids = bank_.reserve_ids(static_cast<int64_t>(inputs_.size()));
    std::vector<DocumentTokens> documents;
    for (size_t i = 0; i < inputs_.size(); ++i) {
      documents.push_back(model_.prompts().document(ids[i], texts_[i]).tokens);
    }
    const AddResult result =
        writer_.add(ids, inputs_, documents, edit_, [&](int64_t tokens) { progress_.advance(tokens); });
    MSA_CHECK(result.committed());
    for (const DocumentTokens& d : documents) tokens_ += static_cast<int64_t>(d.size());
    added_.insert(added_.end(), ids.begin(), ids.end());
    inputs_.clear();
    edit_.remove.clear();
    texts_.clear();
    pending_ids_.clear();
    pending_tokens_ = 0;
  }

  int report(bool json, const std::vector<SourceProblem>& problems) {
    progress_.finish();
    const double encode_ms = writer_.encode_ms(), store_ms = writer_.store_ms();
    const double rate = encode_ms > 0 ? static_cast<double>(tokens_) / encode_ms * 1e3 : 0;
    int64_t skipped = 0;
    for (const SourceProblem& p : problems) {
      if (!p.is_note) ++skipped;
      std::cerr << "msa: " << p.where << ": " << p.what << (p.is_note ? "\n" : " (skipped)\n");
    }
    if (interrupted()) std::cerr << "msa: interrupted; what was committed before stays\n";
    if (json) {
      print_json({{"added", added_},
                  {"unchanged", unchanged_},
                  {"replaced", replaced_},
                  {"reinstated", reinstated_},
                  {"split", split_},
                  {"skipped", skipped},
                  {"tokens", tokens_},
                  {"ms", {{"encode", encode_ms}, {"store", store_ms}}},
                  {"tokens_per_second", rate}});
    } else {
      std::cout << fmt::format("added {} documents, {} tokens: encoded in {:.1f} s ({:.0f} tok/s), stored in {:.0f} ms",
                               added_.size(), tokens_, encode_ms / 1e3, rate, store_ms);
      if (unchanged_ > 0) std::cout << fmt::format("; {} were there already", unchanged_);
      if (!replaced_.empty()) std::cout << fmt::format("; {} former versions replaced", replaced_.size());
      if (!reinstated_.empty()) std::cout << fmt::format("; {} reinstated without encoding", reinstated_.size());
      std::cout << '\n';
    }
    return interrupted() ? 1 : 0;
  }

 private:
  void take_part(std::string external_id, const std::string& text, const std::string& metadata) {
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
  bool keeps(const std::string& external_id, const std::string& text, const std::string& metadata) {
    if (external_id.empty()) return false;
    const std::string hash = content_hash(text);
    const auto known = bank_.find_by_external_id(options_.name_space, external_id);
    if (!known) {
      const auto removed = bank_.find_removed(options_.name_space, external_id, hash);
      if (!removed || !bank_.reinstate(removed->id, metadata)) return false;
      reinstated_.push_back(removed->id);
      return true;
    }
    if (known->content_hash == hash) {
      if (!options_.replace || Json::parse(known->metadata_json) == Json::parse(metadata)) {
        ++unchanged_;
      } else if (bank_.reinstate(known->id, metadata)) {
        reinstated_.push_back(known->id);
      }
      return true;
    }
    if (!options_.replace) {
      throw Error("the bank already has another text under this external id, as document " + std::to_string(known->id),
                  external_id, "replace it with --replace, or remove it first: msa rm " + std::to_string(known->id));
    }
    replaced_.push_back(known->id);
    return false;
  }

  /// Parts of a former version that the new one does not have.
  void remove_other_parts(const std::string& name, const std::set<std::string>& names) {
    if (name.empty()) return;
    for (const DocumentRecord& part : bank_.find_parts(options_.name_space, name)) {
      if (names.contains(part.external_id)) continue;
      edit_.remove.push_back(part.id);
      replaced_.push_back(part.id);
    }
  }

  const Model& model_;
  Bank& bank_;
  const Options& options_;
  BankWriter writer_;
  int64_t commit_tokens_;
  ProgressBar progress_;
  std::vector<DocumentInput> inputs_;
  std::vector<std::vector<int32_t>> texts_;  // tokens of inputs_
  std::set<std::string> pending_ids_;
  AddOptions edit_;
  int64_t pending_tokens_ = 0;
  std::vector<DocumentId> added_, replaced_, reinstated_;
  int64_t taken_ = 0, unchanged_ = 0, split_ = 0, tokens_ = 0;
};

int run(const Common& common, const Options& o) {
  install_interrupt_handler();
  Ranks ranks(common);
  if (!ranks.is_driver()) return ranks.serve(/*encodes=*/true);
  Context context = make_context(common);
  const Model model = load_model(context, common);
  const int room = model.config().max_positions - 64;  // the template around the text
  if (o.max_tokens > room) {
    throw Error(fmt::format("{} tokens do not fit into the model's context; at most {} do", o.max_tokens, room),
                "--max-tokens", "choose a smaller number");
  }
  const auto bank = open_bank(common, model, BankMode::kWrite);
  Adder adder(context, model, *bank, o, ranks.driver(context));
  std::vector<SourceProblem> problems;
  SourceOptions source_options;
  source_options.external_id = o.id;
  source_options.metadata_json = metadata_object(o);
  source_options.stop = interrupted;
  read_sources(
      o.paths, source_options, [&](SourceDocument&& d) { return adder.take(std::move(d)); }, problems);
  adder.commit();
  return adder.report(common.json, problems);
}

}  // namespace

void register_add(CLI::App& app, Common& common, Command& command) {
  CLI::App* add = app.add_subcommand("add", "Encode documents into the memory bank");
  auto o = std::make_shared<Options>();
  add->add_option("PATH", o->paths, "Files, folders (txt, md, html, pdf), BEIR .jsonl[.zst], or - for stdin")
      ->required();
  add->add_option("--namespace", o->name_space, "Namespace of the documents");
  add->add_option("--meta", o->metadata, "Metadata, key=value; may be repeated");
  add->add_option("--user", o->user, "Whose documents these are: metadata \"user\"");
  add->add_option("--tag", o->tags, "Metadata \"tags\"; may be repeated")->take_all();
  add->add_option("--time", o->time, "When they are from, as 2026-01-31: metadata \"time\"");
  add->add_flag("--replace", o->replace, "Replace the documents that have these external ids");
  add->add_option("--first-id", o->first_id,
                  "Give ids from here on (default: a new bank begins at random below 5000, so that banks merge)")
      ->check(CLI::Range(DocumentId{1}, DocumentId{1} << 40));
  add->add_option("--id", o->id, "External id of the one document given");
  add->add_option("--limit", o->limit, "At most this many documents");
  add->add_option("--max-tokens", o->max_tokens, "Longer documents are split into parts of this length")
      ->check(CLI::Range(32, 1 << 20))
      ->capture_default_str();
  add->add_option("--overlap", o->overlap, "Tokens that neighbouring parts share")
      ->check(CLI::Range(0, 1 << 16))
      ->capture_default_str();
  add_model_options(*add, common);
  add_rank_options(*add, common);
  add_bank_option(*add, common);
  add_json_option(*add, common);
  add->callback([&common, &command, o] {
    if (o->overlap >= o->max_tokens / 2)
      throw CLI::ValidationError("--overlap", "must be less than half of --max-tokens");
    command = [&common, o] { return run(common, *o); };
  });
}

}  // namespace msa::cli
