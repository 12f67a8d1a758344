// msa bench: how fast this machine encodes, routes and decodes, each beside what limits it; and what a bank costs.
#include "cli/bench.h"

#include <fmt/format.h>

#include <algorithm>
#include <iostream>
#include <random>

#include "core/copy.h"
#include "core/cpu.h"
#include "engine/sampler.h"
#include "engine/session.h"
#include "model/shapes.h"
#include "ops/fill.h"
#include "ops/limits.h"
#include "ops/max_inner_product.h"

namespace msa::cli {
namespace {

using Options = BenchOptions;
using Clock = std::chrono::steady_clock;

LinearFormat format_of(const Common& common, const Context& context) {
  return transformer_options(parse_precision(common.dtype), context.device).format;
}

}  // namespace

Json measure_encode(Context& context, const Common& common, const BenchModel& model, const BenchOptions& o) {
  std::vector<DocumentTokens> documents;
  documents.reserve(static_cast<size_t>(o.documents));
  for (int i = 0; i < o.documents; ++i) {
    documents.push_back(random_tokens(o.document_tokens, model.config().vocab, static_cast<uint64_t>(i)));
  }
  Encoder encoder(model.transformer(), DType::kBF16, o.pack_tokens);
  const Timing t = time_runs(o.repeats, [&] { encoder.encode(context, documents); });
  const double tokens = static_cast<double>(o.documents) * o.document_tokens;
  const ModelConfig& c = model.config();
  // Operations of the matrix products alone; the last layer needs its input projections only.
  const double layer = 2.0 * c.hidden * (2.0 * c.q_size() + 2.0 * c.kv_size() + 3.0 * c.intermediate);
  const double routers = 2.0 * c.hidden * c.kv_size() * static_cast<double>(c.memory.routing_layers.size());
  const double flops = (c.n_layers - 1) * layer + 2.0 * c.hidden * (c.q_size() + 2.0 * c.kv_size()) + routers;
  const double gflops = flops * tokens / t.best_ms / 1e6;
  const double limit = bench::product_limit(context, format_of(common, context));
  return {{"documents", o.documents},
          {"document_tokens", o.document_tokens},
          {"tokens_per_second", round1(tokens / t.best_ms * 1e3)},
          {"median_tokens_per_second", round1(tokens / t.median_ms * 1e3)},
          {"matrix_gflops", round1(gflops)},
          {"limit_gflops", round1(limit)},
          {"share_of_limit", round2(gflops / limit)},
          {"threads", context.pool.threads()}};
}

Json measure_decode(Context& context, const BenchModel& model, const BenchOptions& o) {
  const std::vector<int32_t> prompt = random_tokens(o.prompt_tokens, model.config().vocab, 1);
  double prefill_ms = 1e30;
  const auto run = [&] {
    Session session(context, model.transformer(), model.head(), nullptr, model.head().length());
    const auto start = Clock::now();
    std::span<const float> logits = session.feed(context, prompt);
    prefill_ms = std::min(prefill_ms, ms_since(start));
    const auto decode_start = Clock::now();
    int32_t token = argmax(logits);
    for (int i = 0; i < o.new_tokens; ++i) token = session.feed_greedily(context, token);
    return ms_since(decode_start);
  };
  run();
  double best = 1e30;
  for (int i = 0; i < o.repeats; ++i) best = std::min(best, run());
  const double gb_per_second = static_cast<double>(model.transformer().decode_bytes()) * o.new_tokens / best / 1e6;
  const double limit = bench::read_limit(context);
  return {{"prompt_tokens", o.prompt_tokens},
          {"new_tokens", o.new_tokens},
          {"tokens_per_second", round1(o.new_tokens / best * 1e3)},
          {"ms_per_token", best / o.new_tokens},
          {"prefill_ms", prefill_ms},
          {"weight_gb_per_second", round1(gb_per_second)},
          {"limit_gb_per_second", round1(limit)},
          {"share_of_limit", round2(gb_per_second / limit)},
          {"threads", context.pool.threads()}};
}

namespace {

int bench_encode(const Common& common, const Options& o) {
  Context context = make_context(common);
  const BenchModel model(context, common, o.shape);
  report(common, context, "encode", measure_encode(context, common, model, o));
  return 0;
}

int bench_decode(const Common& common, const Options& o) {
  Context context = make_context(common);
  const BenchModel model(context, common, o.shape);
  report(common, context, "decode", measure_decode(context, model, o));
  return 0;
}

int bench_route(const Common& common, const Options& o) {
  Context context = make_context(common);
  const int n = 192;  // G·d of the default model
  Buffer key_memory, query_memory, out_memory;
  const Tensor keys = key_memory.tensor(DType::kBF16, {o.chunks, n}, context.device);
  const Tensor queries = query_memory.tensor(DType::kF32, {o.query_tokens, n}, context.device);
  const Tensor out = out_memory.tensor(DType::kF32, {o.chunks}, context.device);
  fill_uniform(context, keys, 1.0f, 7);
  fill_uniform(context, queries, 1.0f, 8);
  const Timing t = time_runs(o.repeats, [&] {
    max_inner_product(context, queries, keys, out);
    synchronize(context);
  });
  const double flops = 2.0 * static_cast<double>(o.chunks) * n * o.query_tokens;
  const double gflops = flops / t.best_ms / 1e6, gb_per_second = static_cast<double>(keys.bytes()) / t.best_ms / 1e6;
  const double compute_limit =
      bench::product_limit(context, transformer_options(Precision::kAuto, context.device).format);
  const double memory_limit = bench::read_limit(context);
  report(common, context, "route",
         {{"chunks", o.chunks},
          {"query_tokens", o.query_tokens},
          {"ms_per_layer", t.best_ms},
          {"median_ms_per_layer", t.median_ms},
          {"gflops", round1(gflops)},
          {"limit_gflops", round1(compute_limit)},
          {"key_gb_per_second", round1(gb_per_second)},
          {"limit_gb_per_second", round1(memory_limit)},
          {"share_of_limit", round2(std::max(gflops / compute_limit, gb_per_second / memory_limit))},
          {"threads", context.pool.threads()}});
  return 0;
}

int bench_bank(const Common& common, const Options& o) {
  report(common, "bank", measure_bank(o.bank));
  return 0;
}

void add_bank_bench(CLI::App& bench, Common& common, Command& command, const std::shared_ptr<Options>& o) {
  CLI::App* sub = bench.add_subcommand("bank", "Filling, adding to and opening a bank of random vectors; no model");
  const auto count = [&](const char* name, auto& value, int64_t most, const char* help) {
    sub->add_option(name, value, help)->check(CLI::Range(int64_t{1}, most))->capture_default_str();
  };
  count("--documents", o->bank.documents, int64_t{1} << 32, "Documents");
  count("--chunks", o->bank.chunks, 4096, "Chunks a document");
  count("--text-bytes", o->bank.text_bytes, 65536, "Bytes of text a chunk");
  count("--layers", o->bank.layers, 256, "Routing layers");
  count("--kv-heads", o->bank.kv_heads, 256, "Key/value heads");
  count("--head-dim", o->bank.head_dim, 1024, "Dimensions of a head");
  sub->add_option("--folder", o->bank.folder, "Where to make it (default: the system's temporary folder)");
  add_json_option(*sub, common);
  sub->callback([&common, &command, o] { command = [&common, o] { return bench_bank(common, *o); }; });
}

}  // namespace

void register_bench(CLI::App& app, Common& common, Command& command) {
  CLI::App* bench = app.add_subcommand("bench", "Measure encoding, routing, decoding and the bank on this machine");
  bench->require_subcommand(1);
  auto o = std::make_shared<Options>();
  const auto add = [&](const char* name, const char* help, int (*run)(const Common&, const Options&)) {
    CLI::App* sub = bench->add_subcommand(name, help);
    sub->add_option("--repeats", o->repeats, "Timed runs")->check(CLI::Range(1, 1000))->capture_default_str();
    add_model_options(*sub, common);
    add_json_option(*sub, common);
    sub->callback([&common, &command, o, run] { command = [&common, o, run] { return run(common, *o); }; });
    return sub;
  };
  CLI::App* gpu = add("gpu", "Routing, encoding, decoding, time to first token on a GPU: one page", bench_gpu);
  CLI::App* encode = add("encode", "Tokens per second of encoding documents", bench_encode);
  CLI::App* ops = add("ops", "Every op of a layer by itself: over documents, then over one token", bench_ops);
  for (CLI::App* sub : {encode, ops, gpu}) {
    int& documents = sub == gpu ? o->gpu_documents : o->documents;
    sub->add_option("--documents", documents, "Documents a run")->check(CLI::Range(1, 4096))->capture_default_str();
  }
  encode->add_option("--pack", o->pack_tokens, "Tokens of one pass (default: the device's own)")
      ->check(CLI::Range(1, 1 << 20));
  CLI::App* ttft = add("ttft", "Question to first token over a made-up bank, on a GPU", bench_ttft);
  for (CLI::App* sub : {ttft, gpu}) {
    sub->add_option("--bank-tokens", o->bank_tokens, "Tokens of the bank")
        ->check(CLI::Range(int64_t{1}, int64_t{1} << 40))
        ->capture_default_str();
  }
  for (CLI::App* sub : {encode, ops, ttft, gpu}) {
    sub->add_option("--tokens", o->document_tokens, "Tokens a document")
        ->check(CLI::Range(1, 8192))
        ->capture_default_str();
  }
  for (CLI::App* sub : {ttft, gpu}) add_device_bank_options(*sub, common);
  add_rank_options(*ttft, common);
  CLI::App* decode = add("decode", "Tokens per second of decoding, batch 1", bench_decode);
  for (CLI::App* sub : {decode, gpu}) {
    sub->add_option("--new-tokens", o->new_tokens, "Tokens to decode")
        ->check(CLI::Range(1, 4096))
        ->capture_default_str();
  }
  for (CLI::App* sub : {decode, ttft, gpu}) {
    sub->add_option("--prompt", o->prompt_tokens, "Tokens before the first new one")
        ->check(CLI::Range(1, 4096))
        ->capture_default_str();
  }
  for (CLI::App* sub : {encode, decode, ops, ttft, gpu}) {
    sub->add_option("--shape", o->shape,
                    "Random weights of this shape, 4b or 135m, instead of a model (ops: always, default 135m; gpu: "
                    "always, default both)");
  }
  CLI::App* route = add("route", "The routing scan of one layer over random keys", bench_route);
  route->add_option("--chunks", o->chunks, "Keys")
      ->check(CLI::Range(int64_t{1}, int64_t{1} << 32))
      ->capture_default_str();
  for (CLI::App* sub : {route, ttft, gpu}) {
    sub->add_option("--query", o->query_tokens, "Routed query tokens")
        ->check(CLI::Range(1, 4096))
        ->capture_default_str();
  }
  CLI::App* parallel =
      add("parallel", "Under mpirun: a hop over the ranks, predicted and measured; encoding", bench_parallel);
  parallel->add_option("--ranks", o->parallel.ranks, "Without mpirun: this many ranks, as threads of one process")
      ->check(CLI::Range(1, 256));
  parallel->add_option("--chunks", o->parallel.chunks, "Chunks of the made-up bank")
      ->check(CLI::Range(int64_t{1}, int64_t{1} << 32))
      ->capture_default_str();
  parallel->add_option("--document-chunks", o->parallel.document_chunks, "Chunks a document")
      ->check(CLI::Range(1, 4096))
      ->capture_default_str();
  parallel->add_option("--documents", o->parallel.documents, "Documents to encode; 0: none, and no model is read")
      ->check(CLI::Range(0, 4096))
      ->capture_default_str();
  parallel->add_option("--tokens", o->document_tokens, "Tokens of each")
      ->check(CLI::Range(1, 8192))
      ->capture_default_str();
  parallel->add_option("--query", o->query_tokens, "Routed query tokens")
      ->check(CLI::Range(1, 4096))
      ->capture_default_str();
  parallel->add_option("--folder", o->parallel.folder,
                       "Where the bank is made, seen by all ranks (default: the system's temporary folder)");
  add_rank_options(*parallel, common);
  add_bank_bench(*bench, common, command, o);
}

}  // namespace msa::cli
