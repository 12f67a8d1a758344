// msa bench parallel: what a hop over the ranks costs, predicted from latency, bytes and the scan, beside what it took;
// and how fast the ranks encode together.
#include <algorithm>
#include <optional>
#include <random>
#include <thread>

#include "cli/bench.h"
#include "cli/scratch_folder.h"
#include "comm/exchange.h"
#include "core/copy.h"
#include "engine/bank_writer.h"
#include "engine/shard_driver.h"
#include "engine/shard_server.h"
#include "engine/sharded_memory.h"
#include "model/shapes.h"
#include "ops/fill.h"

namespace msa::cli {
namespace {

using Clock = std::chrono::steady_clock;

constexpr int64_t kLargeBytes = int64_t{4} << 20;  // of the message whose time gives the bandwidth
constexpr int kTopK = 16;

/// What the ways between rank 0 and the others take, seen from rank 0.
struct Ways {
  double round_trip_ms = 0;    // a few bytes to all ranks, and a reply from each
  double out_ms_per_byte = 0;  // of one body sent to all ranks
  double in_ms_per_byte = 0;   // of bodies from all ranks, their sum
};

double ping_ms(ShardDriver& ranks, int repeats, int64_t out_bytes, int64_t in_bytes) {
  Buffer memory;
  Message message = ranks.request(ShardCommand::kPing);
  HeadWriter(message.head).put(in_bytes);
  if (out_bytes > 0) {
    message.body = memory.tensor(DType::kI8, {out_bytes}, ranks.body_device());
    if (!on_cuda(message.body)) std::fill_n(message.body.as<char>(), out_bytes, 0);
  }
  const auto ping = [&] {
    Message fresh = ranks.request(ShardCommand::kPing);
    std::copy(fresh.head.begin(), fresh.head.end(), message.head.begin());
    ranks.for_each_reply(ranks.ask_each(ranks.others(), message), [](int, HeadReader&) {});
  };
  return time_runs(repeats, ping).median_ms;
}

Ways measure_ways(ShardDriver& ranks, int repeats) {
  Ways ways;
  const auto others = static_cast<double>(ranks.others().size());
  ways.round_trip_ms = ping_ms(ranks, 100 * repeats, 0, 0);
  ways.out_ms_per_byte =
      (ping_ms(ranks, repeats, kLargeBytes, 0) - ways.round_trip_ms) / static_cast<double>(kLargeBytes);
  ways.in_ms_per_byte =
      (ping_ms(ranks, repeats, 0, kLargeBytes) - ways.round_trip_ms) / (others * static_cast<double>(kLargeBytes));
  return ways;
}

EncodedDocument random_document(const BankShape& shape, int chunks, std::minstd_rand& random) {
  EncodedDocument d;
  d.n_chunks = chunks;
  d.n_tokens = d.n_chunks * shape.chunk_tokens;
  const auto elements = static_cast<size_t>(d.n_chunks * shape.row_elements());
  const auto fill = [&](Buffer& buffer, size_t n) {
    auto* to = static_cast<bf16*>(buffer.data());
    for (size_t i = 0; i < n; ++i) to[i] = to_bf16(static_cast<float>(random() % 2048) / 1024 - 1);
  };
  for (int l = 0; l < shape.n_layers(); ++l) {
    fill(d.keys.emplace_back(elements * sizeof(bf16)), elements);
    fill(d.content.emplace_back(2 * elements * sizeof(bf16)), 2 * elements);
  }
  return d;
}

std::unique_ptr<Bank> make_bank(const std::filesystem::path& folder, const BankShape& shape,
                                const ParallelBenchOptions& o) {
  constexpr int64_t kCommitDocuments = 256;
  auto bank = Bank::create_or_open(folder, shape, BankMode::kWrite);
  std::minstd_rand random(1);
  const int64_t documents = std::max<int64_t>(1, o.chunks / o.document_chunks);
  for (int64_t done = 0; done < documents; done += kCommitDocuments) {
    const auto ids = bank->reserve_ids(std::min(kCommitDocuments, documents - done));
    const std::vector<DocumentInput> inputs(ids.size());
    std::vector<EncodedDocument> encoded;
    for (size_t i = 0; i < ids.size(); ++i) encoded.push_back(random_document(shape, o.document_chunks, random));
    MSA_CHECK(bank->add(ids, inputs, encoded).committed());
  }
  return bank;
}

/// All routing layers once: milliseconds.
double hop_ms(Context& context, const ModelConfig& config, RoutedMemory& memory, const Tensor& q, int repeats) {
  return time_runs(repeats,
                   [&] {
                     for (const int layer : config.memory.routing_layers) {
                       memory.route(context, layer, q);
                       memory.gather(layer);
                     }
                     synchronize(context);
                   })
      .median_ms;
}

Json measure_hop(const Common& common, Context& context, const BenchOptions& o, ShardDriver& ranks) {
  const ModelConfig config = named_shape("135m");
  BankShape shape;
  shape.routing_layers = config.memory.routing_layers;
  shape.kv_heads = config.n_kv_heads;
  shape.head_dim = config.head_dim;
  shape.fingerprint = "bench";
  const ScratchFolder folder(o.parallel.folder, "bench-parallel");
  const auto bank = make_bank(folder.path(), shape, o.parallel);
  const auto snapshot = bank->snapshot();
  Buffer query;
  const Tensor q = query.tensor(DType::kF32, {o.query_tokens, config.q_size()}, context.device);
  fill_uniform(context, q, 1.0f, 8);

  const Ways ways = measure_ways(ranks, o.repeats);
  DeviceBank device(device_options(common));
  ShardedMemory several(context, config, snapshot, {kTopK}, device, ranks);
  const auto holding = ranks.hold(snapshot);
  DeviceBank whole(device_options(common)), part(device_options(common));
  BankMemory one(config, snapshot, {kTopK}, whole.keys(context, snapshot), whole.content(context));
  BankMemory own(config, holding->own, {kTopK}, part.keys(context, holding->own), part.content(context));
  const double one_ms = hop_ms(context, config, one, q, o.repeats);
  const double own_ms = hop_ms(context, config, own, q, o.repeats);
  const double measured_ms = hop_ms(context, config, several, q, o.repeats);

  // Every part scores at the same time, and all parts are equal; then a layer is two round trips: candidates, content.
  const auto layers = static_cast<double>(shape.n_layers()), others = static_cast<double>(ranks.others().size());
  const double content_bytes = kTopK * o.parallel.document_chunks * 2.0 * static_cast<double>(shape.row_bytes());
  const double candidate_bytes = kTopK * sizeof(ShardCandidate) * others;
  const double chosen_elsewhere = content_bytes * others / (others + 1);
  const int64_t query_bytes = int64_t{4} * o.query_tokens * config.kv_size();
  const double scan_ms = own_ms;
  const double latency_ms = layers * 2 * ways.round_trip_ms;
  const double bytes_ms = layers * (static_cast<double>(query_bytes) * ways.out_ms_per_byte +
                                    (candidate_bytes + chosen_elsewhere) * ways.in_ms_per_byte);
  return {{"ranks", ranks.size()},
          {"chunks", snapshot->n_chunks()},
          {"layers", shape.n_layers()},
          {"query_tokens", o.query_tokens},
          {"threads_per_rank", context.pool.threads()},
          {"round_trip_us", round1(ways.round_trip_ms * 1e3)},
          {"out_gb_per_second", round2(1e-6 / ways.out_ms_per_byte)},
          {"in_gb_per_second", round2(1e-6 / ways.in_ms_per_byte)},
          {"query_bytes", query_bytes},
          {"content_bytes", content_bytes},
          {"predicted_ms",
           {{"scan", round2(scan_ms)},
            {"latency", round2(latency_ms)},
            {"bytes", round2(bytes_ms)},
            {"hop", round2(scan_ms + latency_ms + bytes_ms)}}},
          {"measured_ms", round2(measured_ms)},
          {"one_process_ms", round2(one_ms)}};
}

Json measure_encoding(Context& context, const Model& model, const BenchOptions& o, ShardDriver& ranks) {
  std::vector<DocumentTokens> documents;
  for (int i = 0; i < o.parallel.documents; ++i) {
    documents.push_back(random_tokens(o.document_tokens, model.config().vocab, static_cast<uint64_t>(i)));
  }
  const double tokens = static_cast<double>(o.parallel.documents) * o.document_tokens;
  const auto rate = [&](const std::string& name, ShardDriver* by) {
    const ScratchFolder folder(o.parallel.folder, "bench-" + name);
    const auto bank = Bank::create_or_open(folder.path(), bank_shape(model.transformer()), BankMode::kWrite);
    BankWriter writer(context, model, *bank, by);
    double best = 1e30;
    for (int run = 0; run <= o.repeats; ++run) {  // the first one warms up
      const auto ids = bank->reserve_ids(o.parallel.documents);
      const std::vector<DocumentInput> inputs(ids.size());
      const auto start = Clock::now();
      MSA_CHECK(writer.add(ids, inputs, documents).committed());
      if (run > 0) best = std::min(best, ms_since(start));
    }
    return tokens / best * 1e3;
  };
  const double alone = rate("alone", nullptr), together = rate("together", &ranks);
  return {{"tokens", tokens},
          {"rank_0_alone_tokens_per_second", round1(alone)},
          {"all_ranks_tokens_per_second", round1(together)},
          {"times_as_fast", round2(together / alone)}};
}

Json measure(const Common& common, Context& context, const BenchOptions& o, ShardDriver& ranks) {
  Json result = measure_hop(common, context, o, ranks);
  if (o.parallel.documents > 0) result["encode"] = measure_encoding(context, load_model(context, common), o, ranks);
  return result;
}

void serve(const Common& common, Exchange& exchange, bool encodes) {
  Context context = make_context(common, exchange.rank(), exchange.size());
  std::optional<Model> model;
  if (encodes) model.emplace(load_model(context, common));
  ShardServer(context, exchange, device_options(common), model ? &*model : nullptr).serve();
}

/// Ranks that are threads. What one throws ends the program: a measurement without it would be none.
Json measure_threads(const Common& common, Context& context, const BenchOptions& o) {
  auto ends = thread_exchanges(o.parallel.ranks);
  std::vector<std::jthread> threads;
  for (size_t r = 1; r < ends.size(); ++r) {
    threads.emplace_back([&, r] { serve(common, *ends[r], o.parallel.documents > 0); });
  }
  ShardDriver driver(*ends[0], {});
  return measure(common, context, o, driver);
}

}  // namespace

int bench_parallel(const Common& common, const BenchOptions& o) {
  Ranks ranks(common);
  if (ranks.is_one() && o.parallel.ranks < 2) {
    throw Error("one rank has no others to measure", "msa bench parallel",
                "mpirun -n 2 msa bench parallel, or --ranks 2 for threads");
  }
  if (!ranks.is_driver()) return ranks.serve(o.parallel.documents > 0);
  Context context = ranks.is_one() ? make_context(common, 0, o.parallel.ranks) : make_context(common);
  report(common, context, "parallel",
         ranks.is_one() ? measure_threads(common, context, o) : measure(common, context, o, *ranks.driver(context)));
  return 0;
}

}  // namespace msa::cli
