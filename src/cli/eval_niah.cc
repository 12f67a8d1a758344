// msa eval niah: needles in a haystack, by task, length and depth.
#include <fmt/format.h>

#include <filesystem>
#include <iostream>
#include <map>
#include <optional>

#include "cli/eval.h"
#include "cli/progress.h"
#include "cli/scratch_folder.h"
#include "core/cpu.h"
#include "eval/niah.h"
#include "eval/sizes.h"
#include "io/beir.h"

namespace msa::cli {
namespace {

struct Options {
  std::string sizes = "32k,128k,1M";
  std::vector<std::string> tasks{"all"};
  std::string essays;
  int document_tokens = 256;
  std::string work;
  eval::NeedleOptions needles;
  eval::Bootstrap bootstrap;
};

std::string read_essays(const std::string& path) {
  std::string text;
  for_each_line(path, kMaxBeirLineBytes, [&](std::string_view line, const std::string&) {
    text += line;
    text += '\n';
  });
  return text;
}

std::vector<eval::NeedleTask> chosen_tasks(const Options& o) {
  std::vector<eval::NeedleTask> tasks;
  for (const std::string& name : o.tasks) {
    if (name == "all")
      tasks.insert(tasks.end(), eval::needle_tasks().begin(), eval::needle_tasks().end());
    else
      tasks.push_back(eval::needle_task(name));
  }
  for (const eval::NeedleTask& task : tasks) {
    if (task.haystack == eval::HaystackKind::kEssay && o.essays.empty()) {
      throw Error(fmt::format("the task {} hides its needles in prose", task.name), "--essays",
                  "give a text file, plain or .zst, or choose other tasks with --tasks");
    }
  }
  return tasks;
}

/// Tasks share a haystack where they hide needles in the same text.
std::string haystack_name(const eval::NeedleTask& task) {
  switch (task.haystack) {
    case eval::HaystackKind::kNoise: return "noise";
    case eval::HaystackKind::kEssay: return "essays";
    case eval::HaystackKind::kNeedle: return task.name;
  }
  MSA_CHECK(false);
}

int run(const Common& common, const Options& o) {
  Ranks ranks(common);
  if (!ranks.is_driver()) return ranks.serve(/*encodes=*/true);
  const std::vector<int64_t> sizes = eval::parse_sizes(o.sizes, "--sizes");
  const std::vector<eval::NeedleTask> tasks = chosen_tasks(o);
  const std::string essays = o.essays.empty() ? "" : read_essays(o.essays);
  Context context = make_context(common);
  eval::HaystackOptions place{essays, o.document_tokens, o.bootstrap.seed};
  place.ranks = ranks.driver(context);
  const Model model = load_model(context, common);
  std::optional<ScratchFolder> work;
  if (!o.work.empty() || !ranks.is_one()) work.emplace(o.work, "niah");
  std::map<std::string, eval::Haystack> haystacks;
  Json results = Json::array();
  for (const int64_t size : sizes) {
    for (const eval::NeedleTask& task : tasks) {
      const std::string name = haystack_name(task);
      place.folder = work ? work->path() / name : std::filesystem::path();
      eval::Haystack& haystack = haystacks.try_emplace(name, context, model, task, place).first->second;
      ProgressBar growth(fmt::format("{} {}", name, eval::size_name(size)), size, "tok");
      haystack.grow(size, [&](int64_t tokens) { growth.update(tokens); });
      growth.finish();
      ProgressBar bar(fmt::format("{} {}", task.name, eval::size_name(size)), o.needles.samples, "samples");
      eval::NeedleResult result = eval::run_needles(context, model, task, haystack, o.needles, [&] { bar.advance(1); });
      bar.finish();
      result.tokens = size;
      results.push_back(eval::to_json(result, o.bootstrap));
      if (!common.json)
        print_metrics(fmt::format("{} {}", eval::size_name(size), task.name), results.back()["metrics"]);
    }
  }
  if (common.json) {
    Json report = {{"task", "niah"},           {"seed", o.bootstrap.seed}, {"resamples", o.bootstrap.resamples},
                   {"machine", cpu_summary()}, {"essays", o.essays},       {"document_tokens", o.document_tokens}};
    report.update(to_json(model));
    report["results"] = std::move(results);
    print_json(report);
  }
  return 0;
}

}  // namespace

void register_eval_niah(CLI::App& eval, Common& common, Command& command) {
  CLI::App* niah = eval.add_subcommand("niah", "Needles in a haystack (RULER's tasks), by length and depth");
  auto o = std::make_shared<Options>();
  o->needles.ask.max_answer_tokens = 128;
  niah->add_option("--sizes", o->sizes, "Tokens of the haystack, ascending")->capture_default_str();
  niah->add_option("--tasks", o->tasks, "all, or some of single_1-3, multikey_1-3, multivalue, multiquery")
      ->delimiter(',')
      ->capture_default_str();
  niah->add_option("--essays", o->essays, "Prose to hide needles in, plain or .zst; repeated where it is too short");
  niah->add_option("--samples", o->needles.samples, "Of each task and size")
      ->check(CLI::Range(1, 100000))
      ->capture_default_str();
  niah->add_option("--document-tokens", o->document_tokens, "Length of the haystack's documents, about")
      ->check(CLI::Range(16, 1 << 16))
      ->capture_default_str();
  niah->add_option("--work", o->work,
                   "Keep the haystacks as files in a folder below this one, removed at the end (default: in memory; "
                   "under mpirun in the system's temporary folder)");
  niah->add_option("--max-tokens", o->needles.ask.max_answer_tokens, "Length of an answer at most")
      ->check(CLI::Range(1, 100000))
      ->capture_default_str();
  niah->add_option("--seed", o->bootstrap.seed, "Of needles, haystacks and intervals")->capture_default_str();
  niah->add_option("--resamples", o->bootstrap.resamples, "Bootstrap samples behind each 95 % interval")
      ->check(CLI::Range(10, 1000000))
      ->capture_default_str();
  add_model_options(*niah, common);
  add_rank_options(*niah, common);
  add_json_option(*niah, common);
  niah->callback([&common, &command, o] {
    o->needles.seed = o->bootstrap.seed;
    command = [&common, o] { return run(common, *o); };
  });
}

}  // namespace msa::cli
