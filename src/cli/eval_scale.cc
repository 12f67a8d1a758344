// msa eval scale: the same questions while the bank grows with distractors.
#include <fmt/format.h>

#include <iostream>

#include "cli/eval.h"
#include "cli/progress.h"
#include "eval/scale.h"
#include "eval/sizes.h"
#include "io/file.h"

namespace msa::cli {
namespace {

struct Options {
  EvalOptions eval;
  eval::ScaleOptions scale;
  std::string sizes = "16k,64k,256k,1M";
  std::string output;
};

/// One bar after the other, as what is done changes.
class Bars {
 public:
  void update(const std::string& what, int64_t done, int64_t total) {
    if (bar_ == nullptr || what != what_ || total != total_) {
      bar_ = std::make_unique<ProgressBar>(what, total, what == "encoding" ? "tok" : "questions");
      what_ = what;
      total_ = total;
    }
    bar_->update(done);
  }
  void finish() { bar_.reset(); }

 private:
  std::unique_ptr<ProgressBar> bar_;
  std::string what_;
  int64_t total_ = 0;
};

eval::ScaleState begin_or_go_on(const std::string& path, const Json& header) {
  eval::ScaleState state;
  state.header = header;
  if (path.empty() || !file_exists(path)) return state;
  state = eval::ScaleState::load(path);
  if (state.header == header) return state;
  throw Error("these results belong to another model, set, seed, smallest size or list of corpora", path,
              "give --output another name, or the options of that run");
}

int run(const Common& common, Options o) {
  Ranks ranks(common);
  if (!ranks.is_driver()) return ranks.serve(/*encodes=*/true);
  o.scale.sizes = eval::parse_sizes(o.sizes, "--sizes");
  o.scale.bootstrap = o.eval.bootstrap;
  o.scale.questions = o.eval.limit;
  const BeirSet set = load_beir(o.eval.data);
  Context context = make_context(common);
  o.scale.ranks = ranks.driver(context);
  o.scale.device = device_options(common);
  const Model model = load_model(context, common);
  const auto bank = open_eval_bank(common, model, o.scale.ranks);
  eval::ScaleRun scale(context, model, *bank, set, o.scale);
  eval::ScaleState state = begin_or_go_on(o.output, scale.header());
  Bars bars;
  scale.run(
      state, [&](const std::string& what, int64_t done, int64_t total) { bars.update(what, done, total); },
      [&](const eval::ScalePoint& point) {
        bars.finish();
        if (!o.output.empty()) state.save(o.output);
        std::cerr << fmt::format("{}: {} documents, routing {:.2f} ms\n", eval::size_name(point.size), point.documents,
                                 point.routing_ms);
      });
  bars.finish();
  Json report = report_header("scale", o.eval);
  report.update(to_json(model));
  report["questions"] = scale.questions().size();
  report["documents"] = set.documents.size();
  report["distractors"] = o.scale.corpora;
  report["points"] = eval::to_json(state, o.eval.bootstrap);
  if (common.json) {
    print_json(report);
    return 0;
  }
  for (const Json& point : report["points"]) {
    const std::string name = eval::size_name(point["size"].get<int64_t>());
    print_metrics(name, point["metrics"]);
    print_metrics("  relative", point["relative"]);
    std::cout << "  tokens " << point["tokens_of"].dump()
              << fmt::format(", routing {:.2f} ms, bank {:.1f} MB\n", point["routing_ms"].get<double>(),
                             point["bank_bytes"].get<double>() / 1e6);
  }
  return 0;
}

}  // namespace

void register_eval_scale(CLI::App& eval, Common& common, Command& command) {
  CLI::App* scale = eval.add_subcommand("scale", "The same questions while the bank grows with distractors");
  auto o = std::make_shared<Options>();
  o->scale.ask.max_answer_tokens = 48;
  add_eval_options(*scale, o->eval);
  scale->add_option("--sizes", o->sizes, "Tokens of the bank, ascending")->capture_default_str();
  scale->add_option("--distractors", o->scale.corpora,
                    "BEIR folders or corpus files to grow with, behind the set's own documents; then synthetic text");
  scale->add_option("--answers", o->scale.answered, "Answer this many of the questions at each size too")
      ->check(CLI::Range(int64_t{0}, int64_t{1} << 40));
  scale->add_option("--output", o->output, "Keep each size's scores here; a run that was ended goes on (with --bank)");
  add_model_options(*scale, common);
  add_bank_option(*scale, common);
  add_device_bank_options(*scale, common);
  add_rank_options(*scale, common);
  add_json_option(*scale, common);
  scale->callback([&common, &command, o] { command = [&common, o] { return run(common, *o); }; });
}

}  // namespace msa::cli
