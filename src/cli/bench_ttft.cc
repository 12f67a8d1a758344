// msa bench ttft: from a question to the first token of the answer over a made-up bank of a given size.
#include <algorithm>
#include <cstring>
#include <random>

#include "cli/bench.h"
#include "core/copy.h"
#include "core/staging.h"
#include "engine/device_routing.h"
#include "engine/sampler.h"
#include "engine/session.h"
#include "ops/fill.h"
#include "ops/limits.h"

namespace msa::cli {
namespace {

constexpr int64_t kMostContentBytes = int64_t{4} << 30;  // in host memory; documents of a larger bank share it

/// Random keys on the GPU and random content in host memory, documents of one length; routed as BankMemory does.
class RandomBank : public Memory {
 public:
  RandomBank(Context& context, const ModelConfig& config, int64_t documents, int chunks, int top_k,
             const DeviceOptions& options)
      : config_(config), documents_(documents), chunks_(chunks), layers_(routing_layers().size()) {
    BankShape shape;
    shape.routing_layers = routing_layers();
    shape.kv_heads = config.n_kv_heads;
    shape.head_dim = config.head_dim;
    if (!DeviceKeys::fits(shape))
      throw Error("keys of this width are not scanned on a GPU", "--shape", "use 4b or 135m");
    DeviceKeys::Layout layout;
    layout.n_slots = documents;
    layout.slot_of_chunk.resize(static_cast<size_t>(documents * chunks));
    for (size_t i = 0; i < layout.slot_of_chunk.size(); ++i)
      layout.slot_of_chunk[i] = static_cast<int32_t>(i / static_cast<size_t>(chunks));
    const auto fill = [&](int layer, const Tensor& keys) {
      fill_uniform(context, keys, 1.0f, static_cast<uint32_t>(layer + 1));
    };
    keys_ = std::make_shared<DeviceKeys>(context, shape, layout, fill, options);
    const auto n_layers = static_cast<int>(layers_.size());
    routing_ = std::make_unique<DeviceRouting>(
        keys_, DeviceRouting::Query{Similarity::kCosine, config.n_heads, n_layers, top_k, {}});
    const int64_t document_bytes = 4 * int64_t{chunks} * config.kv_size();
    kept_ = std::clamp<int64_t>(kMostContentBytes / document_bytes, 1, documents);
    const Tensor content = content_.tensor(DType::kBF16, {kept_ * chunks, 2, config.kv_size()});
    Context host;
    fill_uniform(host, content, 1.0f, 9);
    content_rows_ = content;
  }

  /// Read in every scan: what candidates cost comes on top.
  int64_t key_bytes() const {
    const KeyPlacement& p = keys_->placement();
    const int64_t bits = keys_->has_bounds() ? p.bits : 16, extra = keys_->has_bounds() ? 16 : 0;
    return documents_ * chunks_ * (config_.kv_size() * bits / 8 + extra) * static_cast<int64_t>(layers_.size());
  }
  const DeviceKeys& keys() const { return *keys_; }
  DeviceRouting& routing() { return *routing_; }

  void route(Context& context, int layer, const Tensor& q) override {
    context_ = &context;
    routing_->route(context, static_cast<int>(index_of(layer)), q);
  }

  std::span<const KeyValueSpan> gather(int layer) override {
    Layer& l = layers_[index_of(layer)];
    if (context_ != nullptr) fetch(l);
    context_ = nullptr;
    return l.spans;
  }

 private:
  struct Layer {
    std::vector<KeyValueSpan> spans;
    Buffer memory;
  };

  void fetch(Layer& l) {
    const std::vector<BestScore> best = routing_->chosen();
    const auto found = static_cast<int64_t>(best.size());
    const Tensor all = staging_.tensor(*context_, DType::kBF16, {found * chunks_, 2, config_.kv_size()});
    for (int64_t i = 0; i < found; ++i) {
      const int64_t document = best[static_cast<size_t>(i)].index % kept_;
      const Tensor part = content_rows_.slice_rows(document * chunks_, (document + 1) * chunks_);
      std::memcpy(all.row<char>(i * chunks_), part.data, static_cast<size_t>(part.bytes()));
    }
    const Tensor content = to_device(*context_, all, l.memory);
    l.spans = {{half_of(content, 0), half_of(content, 1)}};
  }

  const std::vector<int>& routing_layers() const { return config_.memory.routing_layers; }
  size_t index_of(int layer) const {
    return static_cast<size_t>(std::lower_bound(routing_layers().begin(), routing_layers().end(), layer) -
                               routing_layers().begin());
  }
  Tensor half_of(const Tensor& content, int64_t which) const {
    Tensor t(content.as<bf16>() + which * config_.kv_size(), DType::kBF16,
             {content.rows(), config_.n_kv_heads, config_.head_dim}, content.device);
    t.row_bytes = content.row_bytes;
    return t;
  }

  const ModelConfig& config_;
  int64_t documents_;
  int chunks_;
  int64_t kept_ = 0;  // documents whose content is there
  std::vector<Layer> layers_;
  std::shared_ptr<const DeviceKeys> keys_;
  std::unique_ptr<DeviceRouting> routing_;
  Context* context_ = nullptr;  // of a choice on its way
  Buffer content_;
  Tensor content_rows_;  // BF16 [kept · chunks, 2, G·d]
  Staging staging_;
};

}  // namespace

Json measure_ttft(Context& context, const Common& common, const BenchModel& model, const BenchOptions& o) {
  const ModelConfig& c = model.config();
  const int chunks = (o.document_tokens + c.memory.chunk_tokens - 1) / c.memory.chunk_tokens;
  const int64_t documents = std::max<int64_t>(1, o.bank_tokens / o.document_tokens);
  const int top_k = std::min(c.memory.top_k_documents, kMostBestScores);
  RandomBank bank(context, c, documents, chunks, top_k, device_options(common));
  const std::vector<int32_t> prompt = random_tokens(o.prompt_tokens, c.vocab, 1);
  std::vector<uint8_t> routed(prompt.size(), 0);
  std::fill_n(routed.begin(), std::min(o.query_tokens, o.prompt_tokens), uint8_t{1});
  Session session(context, model.transformer(), model.head(), &bank, model.head().length() + top_k);
  int32_t token = 0;
  const Timing t = time_runs(o.repeats, [&] {
    session.restart();
    token = argmax(session.feed(context, prompt, routed));
  });
  const double bytes = static_cast<double>(bank.key_bytes() + model.transformer().decode_bytes());
  const double limit = bench::read_limit(context);
  const DeviceRouting::Statistics statistics = bank.routing().statistics();
  return {{"keys", describe(bank.keys().placement(), bank.keys().sizes())},
          {"chunks_scored_again", statistics.candidates},
          {"layers_fallen_back", statistics.fell_back},
          {"bank_tokens", documents * o.document_tokens},
          {"documents", documents},
          {"chunks_a_document", chunks},
          {"prompt_tokens", o.prompt_tokens},
          {"routed_tokens", std::min(o.query_tokens, o.prompt_tokens)},
          {"top_k", top_k},
          {"first_token", token},
          {"best_ms", round2(t.best_ms)},
          {"median_ms", round2(t.median_ms)},
          {"keys_and_weights_gb", round1(bytes / 1e9)},
          {"read_limit_ms", round2(bytes / limit / 1e6)},
          {"share_of_limit", round2(bytes / limit / 1e6 / t.best_ms)}};
}

int bench_ttft(const Common& common, const BenchOptions& o) {
  Context context = make_context(common);
  if (!on_cuda(context.device)) throw Error("the keys of this benchmark lie on a GPU", "--device", "use --device cuda");
  const BenchModel model(context, common, o.shape);
  report(common, context, "ttft", measure_ttft(context, common, model, o));
  return 0;
}

}  // namespace msa::cli
