#include <fmt/format.h>

#include <iostream>
#include <optional>

#include "cli/commands.h"
#include "cli/progress.h"
#include "cli/sources.h"
#include "core/interrupt.h"
#include "engine/document_adder.h"

namespace msa::cli {
namespace {

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

/// Hands documents to the bank, tells of what it does and counts.
class Adder {
 public:
  Adder(Context& context, const Model& model, Bank& bank, const Options& o, ShardDriver* ranks)
      : options_(o),
        adder_(context, model, bank, {o.name_space, o.replace, o.first_id, o.max_tokens, o.overlap}, ranks),
        progress_("encoding", 0, "tok") {}

  /// Takes one document; returns false when the user interrupted or the limit is reached.
  bool take(SourceDocument&& document) {
    if (interrupted() || (options_.limit >= 0 && taken_ == options_.limit)) return false;
    ++taken_;
    const int parts = adder_.take({document.text, document.external_id, document.metadata_json}, advance_);
    if (parts > 1) {
      ++split_;
      std::cerr << fmt::format("{}: split into {} parts of at most {} tokens, {} of them overlapping\n",
                               document.external_id, parts, options_.max_tokens, options_.overlap);
    }
    return true;
  }

  void commit() { adder_.commit(advance_); }

  int report(bool json, const std::vector<SourceProblem>& problems) {
    progress_.finish();
    const AddReport r = adder_.report();
    const double rate = r.encode_ms > 0 ? static_cast<double>(r.tokens) / r.encode_ms * 1e3 : 0;
    int64_t skipped = 0;
    for (const SourceProblem& p : problems) {
      if (!p.is_note) ++skipped;
      std::cerr << "msa: " << p.where << ": " << p.what << (p.is_note ? "\n" : " (skipped)\n");
    }
    if (interrupted()) std::cerr << "msa: interrupted; what was committed before stays\n";
    if (json) {
      print_json({{"added", r.added},
                  {"unchanged", r.unchanged},
                  {"replaced", r.replaced},
                  {"reinstated", r.reinstated},
                  {"split", split_},
                  {"skipped", skipped},
                  {"tokens", r.tokens},
                  {"ms", {{"encode", r.encode_ms}, {"store", r.store_ms}}},
                  {"tokens_per_second", rate}});
    } else {
      std::cout << fmt::format("added {} documents, {} tokens: encoded in {:.1f} s ({:.0f} tok/s), stored in {:.0f} ms",
                               r.added.size(), r.tokens, r.encode_ms / 1e3, rate, r.store_ms);
      if (r.unchanged > 0) std::cout << fmt::format("; {} were there already", r.unchanged);
      if (!r.replaced.empty()) std::cout << fmt::format("; {} former versions replaced", r.replaced.size());
      if (!r.reinstated.empty()) std::cout << fmt::format("; {} reinstated without encoding", r.reinstated.size());
      std::cout << '\n';
    }
    return interrupted() ? 1 : 0;
  }

 private:
  const Options& options_;
  DocumentAdder adder_;
  ProgressBar progress_;
  DocumentAdder::Progress advance_ = [this](int64_t tokens) { progress_.advance(tokens); };
  int64_t taken_ = 0, split_ = 0;
};

int run(const Common& common, const Options& o) {
  install_interrupt_handler();
  Ranks ranks(common);
  if (!ranks.is_driver()) return ranks.serve(/*encodes=*/true);
  Context context = make_context(common);
  const Model model = load_model(context, common);
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
