// msa bench ttft: from a question to the first token of the answer over a made-up bank of a given size, on one GPU or,
// under mpirun, with a part of the bank on every rank's.
#include <fmt/format.h>

#include <algorithm>
#include <bit>

#include "cli/bench.h"
#include "cli/made_up_bank.h"
#include "core/copy.h"
#include "engine/sampler.h"
#include "engine/session.h"
#include "model/shapes.h"
#include "ops/fill.h"
#include "ops/limits.h"

namespace msa::cli {
namespace {

constexpr int kIdTokens = 8;  // "[4]<|object_ref_end|>" and the like: what a hop writes for one document

MadeUpBank bank_of(const BenchOptions& o, const ModelConfig& c) {
  MadeUpBank bank;
  bank.chunks = (o.document_tokens + c.memory.chunk_tokens - 1) / c.memory.chunk_tokens;
  bank.documents = std::max<int64_t>(1, o.bank_tokens / o.document_tokens);
  bank.top_k = std::min(c.memory.top_k_documents, kMostBestScores);
  return bank;
}

/// The same for the same documents of all layers, whatever the ranks.
std::string digest(const std::vector<std::vector<ShardCandidate>>& layers) {
  uint64_t hash = 0xcbf29ce484222325u;
  for (const auto& layer : layers) {
    for (const ShardCandidate& c : layer) {
      const uint64_t both = static_cast<uint64_t>(c.slot) << 32 | std::bit_cast<uint32_t>(c.score);
      hash = (hash ^ both) * 0x100000001b3u;
      hash ^= hash >> 29;
    }
  }
  return fmt::format("{:016x}", hash);
}

/// Routing alone: every layer's choice is waited for, as the layer that attends to it does.
struct RouteTiming {
  Timing ms;
  std::string digest;  // of documents and scores
};

RouteTiming time_route(Context& context, const ModelConfig& c, MadeUpMemory& memory, int query_tokens, int repeats) {
  Buffer buffer;
  const Tensor q = buffer.tensor(DType::kF32, {query_tokens, c.q_size()}, context.device);
  fill_uniform(context, q, 1.0f, 77);
  std::vector<std::vector<ShardCandidate>> chosen;
  const Timing ms = time_runs(repeats, [&] {
    chosen.clear();
    for (const int layer : c.memory.routing_layers) {
      memory.route(context, layer, q);
      chosen.push_back(memory.choose(layer));
    }
  });
  return {ms, digest(chosen)};
}

/// Rank 0's measurement; `driver` is null in a run of one process.
class TtftBench {
 public:
  TtftBench(Context& context, const Common& common, const BenchModel& model, const BenchOptions& o, ShardDriver* driver)
      : context_(context), o_(o), model_(model), bank_(bank_of(o, model_.config())), driver_(driver) {
    const int ranks = driver == nullptr ? 1 : driver->size();
    part_ = std::make_unique<MadeUpPart>(context, model_.config(), bank_, bank_.part(0, ranks), device_options(common));
    memory_ = std::make_unique<MadeUpMemory>(model_.config(), bank_, *part_, driver_);
  }

  Json run() {
    const ModelConfig& c = model_.config();
    const RouteTiming route = time_route(context_, c, *memory_, o_.query_tokens, o_.repeats);
    const std::vector<int32_t> prompt = random_tokens(o_.prompt_tokens, c.vocab, 1);
    std::vector<uint8_t> routed(prompt.size(), 0);
    std::fill_n(routed.begin(), std::min(o_.query_tokens, o_.prompt_tokens), uint8_t{1});
    const int first_position = model_.head().length() + bank_.top_k;
    Session session(context_, model_.transformer(), model_.head(), memory_.get(), first_position);
    int32_t token = 0;
    const Timing first = time_runs(o_.repeats, [&] {
      session.restart();
      token = argmax(session.feed(context_, prompt, routed));
    });
    const DeviceRouting::Statistics statistics = part_->routing().statistics();
    const int32_t first_token = token;
    const Timing decode = time_runs(o_.repeats, [&] {
      for (int i = 0; i < kIdTokens; ++i) token = session.feed_greedily(context_, token);
    });
    const double keys = static_cast<double>(part_->key_bytes());
    const double weights = static_cast<double>(model_.transformer().decode_bytes());
    const double limit = bench::read_limit(context_);
    const auto limit_ms = [&](double bytes) { return round2(bytes / limit / 1e6); };
    return {{"ranks", driver_ == nullptr ? 1 : driver_->size()},
            {"exchange", driver_ == nullptr                ? "none"
                         : on_cuda(driver_->body_device()) ? "nccl"
                                                           : "host"},
            {"keys", describe(part_->keys().placement(), part_->keys().sizes())},
            {"chunks_scored_again", statistics.candidates},
            {"layers_fallen_back", statistics.fell_back},
            {"bank_tokens", bank_.documents * o_.document_tokens},
            {"documents", bank_.documents},
            {"chunks_a_document", bank_.chunks},
            {"prompt_tokens", o_.prompt_tokens},
            {"routed_tokens", std::min(o_.query_tokens, o_.prompt_tokens)},
            {"top_k", bank_.top_k},
            {"repeats", o_.repeats},
            {"first_token", first_token},
            {"selection", route.digest},
            {"route_ms", round2(route.ms.median_ms)},
            {"best_route_ms", round2(route.ms.best_ms)},
            {"route_limit_ms", limit_ms(keys)},
            {"best_ms", round2(first.best_ms)},
            {"median_ms", round2(first.median_ms)},
            {"read_limit_ms", limit_ms(keys + weights)},
            {"hop_ms", round2(first.median_ms + decode.median_ms)},
            {"decode_ms_per_token", round2(decode.median_ms / kIdTokens)},
            {"decode_limit_ms", limit_ms(weights)},
            {"keys_gb_a_rank", round1(keys / 1e9)},
            {"weights_gb", round1(weights / 1e9)},
            {"limit_gb_per_second", round1(limit)},
            {"share_of_limit", round2(limit_ms(keys + weights) / first.best_ms)}};
  }

 private:
  Context& context_;
  const BenchOptions& o_;
  const BenchModel& model_;
  const MadeUpBank bank_;
  std::unique_ptr<MadeUpPart> part_;
  ShardDriver* const driver_;
  std::unique_ptr<MadeUpMemory> memory_;
};

}  // namespace

Json measure_ttft(Context& context, const Common& common, const BenchModel& model, const BenchOptions& o) {
  return TtftBench(context, common, model, o, nullptr).run();
}

int bench_ttft(const Common& common, const BenchOptions& o) {
  Ranks ranks(common);
  Context context = make_context(common);
  if (!on_cuda(context.device)) throw Error("the keys of this benchmark lie on a GPU", "--device", "use --device cuda");
  if (ranks.is_driver()) {
    const BenchModel model(context, common, o.shape);
    report(common, context, "ttft", TtftBench(context, common, model, o, ranks.driver(context)).run());
    return 0;
  }
  Exchange& exchange = *ranks.exchange(context);
  const ModelConfig config = o.shape.empty() ? load_model(context, common).config() : named_shape(o.shape);
  const MadeUpBank bank = bank_of(o, config);
  const SlotRange range = bank.part(exchange.rank(), exchange.size());
  MadeUpPart part(context, config, bank, range, device_options(common));
  serve_made_up_part(context, part, exchange);
  return 0;
}

}  // namespace msa::cli
