#include <fmt/format.h>

#include <iostream>
#include <memory>
#include <nlohmann/json.hpp>

#include "train/benchmark.h"
#include "train/commands/commands.h"
#include "train/device.h"
#include "train/layer_ops.h"

namespace msa::train {
namespace {

struct Options {
  std::string shape = "135m", device = "auto", recompute = "none";
  BenchmarkOptions run;
  bool composed = false, json = false;
};

int run(Options o) {
  o.run.device = parse_device(o.device);
  o.run.recompute = o.recompute == "keep"      ? Recompute::kKeep
                    : o.recompute == "offload" ? Recompute::kOffload
                                               : Recompute::kNone;
  use_fused_kernels(!o.composed);
  const BenchmarkResult r = run_benchmark(shape_config(o.shape), o.run);
  const double rate = static_cast<double>(r.tokens) / (r.step_ms * 1e-3);
  const double reached = r.product_flops / (r.step_ms * 1e-3), share = reached / r.limit_flops;
  if (o.json) {
    std::cout << nlohmann::ordered_json{{"shape", o.shape},
                                        {"device", o.run.device.str()},
                                        {"tokens", r.tokens},
                                        {"tokens_per_second", rate},
                                        {"ms", r.step_ms},
                                        {"parts_ms",
                                         {{"input", r.input_ms},
                                          {"encode", r.encode_ms},
                                          {"query", r.query_ms},
                                          {"backward", r.backward_ms},
                                          {"optimizer", r.optimizer_ms}}},
                                        {"product_tflops", reached * 1e-12},
                                        {"limit_tflops", r.limit_flops * 1e-12},
                                        {"share", share},
                                        {"memory_gib", r.memory_gib}}
                     .dump(2)
              << '\n';
    return 0;
  }
  std::cout
      << fmt::format("{} on {}, {} tokens a step: {:.1f} ms, {:.0f} tok/s, {:.1f} GiB\n", o.shape, o.run.device.str(),
                     r.tokens, r.step_ms, rate, r.memory_gib)
      << fmt::format("  matrix products {:.1f} of {:.1f} TFLOP/s: {:.2f} of the limit\n", reached * 1e-12,
                     r.limit_flops * 1e-12, share)
      << fmt::format(
             "  in parts: input {:.1f}, encode {:.1f}, query and losses {:.1f}, backward {:.1f}, optimizer {:.1f} ms\n",
             r.input_ms, r.encode_ms, r.query_ms, r.backward_ms, r.optimizer_ms);
  return 0;
}

}  // namespace

void register_bench(CLI::App& app, Command& command) {
  CLI::App* c = app.add_subcommand("bench", "Time training steps with made-up weights and tokens");
  auto o = std::make_shared<Options>();
  c->add_option("--shape", o->shape, "135m or 4b")->check(CLI::IsMember({"135m", "4b"}))->capture_default_str();
  c->add_option("--device", o->device, "cpu, cuda, cuda:N or auto")->capture_default_str();
  c->add_option("--pool", o->run.batch.pool_tokens, "Document tokens of a step")
      ->check(CLI::Range(1, 1 << 24))
      ->capture_default_str();
  c->add_option("--samples", o->run.batch.samples, "Questions of a step")
      ->check(CLI::Range(1, 4096))
      ->capture_default_str();
  c->add_option("--recompute", o->recompute, "none, keep or offload")
      ->check(CLI::IsMember({"none", "keep", "offload"}))
      ->capture_default_str();
  c->add_option("--rank", o->run.parts.rank, "Of the low-rank updates")
      ->check(CLI::Range(1, 1024))
      ->capture_default_str();
  c->add_flag("--all-weights", o->run.parts.all_weights, "Train every weight");
  c->add_flag("--late", o->run.late, "With losses on the late scores");
  c->add_option("--steps", o->run.steps, "Timed, after three to warm up")
      ->check(CLI::Range(1, 10000))
      ->capture_default_str();
  c->add_flag("--composed", o->composed, "Without the fused kernels, to see what they bring");
  c->add_flag("--json", o->json, "Print one JSON object");
  c->callback([&command, o] { command = [o] { return run(*o); }; });
}

}  // namespace msa::train
