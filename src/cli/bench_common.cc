// What the subcommands of `msa bench` share.
#include <fmt/format.h>

#include <algorithm>
#include <iostream>
#include <random>
#include <utility>

#include "cli/bench.h"
#include "core/cpu.h"
#include "model/shapes.h"

namespace msa::cli {

BenchModel::BenchModel(Context& context, const Common& common, const std::string& shape) {
  if (shape.empty()) {
    loaded_ = std::make_unique<Model>(load_model(context, common));
    return;
  }
  const Transformer::Options options = transformer_options(parse_precision(common.dtype), context.device);
  random_ = std::make_unique<Transformer>(context, random_weights(context, named_shape(shape), 1), options);
  random_head_ = run_head(context, *random_, std::vector<int32_t>{0, 1, 2});
}

Timing time_runs(int repeats, const std::function<void()>& run) {
  run();
  std::vector<double> ms;
  for (int i = 0; i < repeats; ++i) {
    const auto start = std::chrono::steady_clock::now();
    run();
    ms.push_back(ms_since(start));
  }
  std::sort(ms.begin(), ms.end());
  return {ms.front(), ms[ms.size() / 2]};
}

std::vector<int32_t> random_tokens(int count, int vocab, uint64_t seed) {
  std::mt19937_64 random(seed);
  std::vector<int32_t> out(static_cast<size_t>(count));
  for (int32_t& t : out) t = static_cast<int32_t>(random() % static_cast<uint64_t>(vocab - 32)) + 32;
  return out;
}

void report(const Common& common, const Context& context, const std::string& what, Json result) {
  if (on_cuda(context.device)) result["gpu"] = device_name(context.device);
  report(common, what, std::move(result));
}

void report(const Common& common, const std::string& what, Json result) {
  result["cpu"] = cpu_summary();
  if (common.json) {
    print_json({{what, result}});
    return;
  }
  std::cout << what << '\n';
  for (const auto& [key, value] : result.items()) {
    std::cout << fmt::format("  {:20} {}\n", key, value.is_string() ? value.get<std::string>() : value.dump());
  }
}

}  // namespace msa::cli
