// msa bench ops: every op of one layer at a model's shape, each beside what bounds it.
#include <fmt/format.h>

#include <deque>
#include <functional>
#include <iostream>

#include "cli/bench.h"
#include "core/copy.h"
#include "core/cpu.h"
#include "model/kv_cache.h"
#include "model/shapes.h"
#include "ops/attention.h"
#include "ops/attention_backend.h"
#include "ops/chunk_mean.h"
#include "ops/decode_attention.h"
#include "ops/fill.h"
#include "ops/limits.h"
#include "ops/norm_linear.h"
#include "ops/norm_rope.h"
#include "ops/rms_norm.h"
#include "ops/silu_mul.h"

namespace msa::cli {
namespace {

constexpr int64_t kBeyondCaches = int64_t{256}
                                  << 20;  // weights of decoding are read in turns, so that none stays there
constexpr int64_t kRunsAtOnce = 8;

/// What one op did.
struct Row {
  std::string op;
  int times;  // in a pass over the model
  double ms, flops, bytes;
};

/// Tensors of one pass and the ops on them, in the types of Transformer::layers.
class OpBench {
 public:
  OpBench(Context& context, const ModelConfig& config, Transformer::Options options, int repeats)
      : context_(context),
        c_(config),
        options_(options),
        repeats_(repeats),
        activation_(options.format == LinearFormat::kBF16 ? DType::kBF16 : DType::kF32),
        projected_(on_cuda(context.device) ? activation_ : DType::kF32),
        rope_(config.head_dim, config.rope_theta, config.max_positions) {
    rope_.prepare(context);
  }

  void encode(int document_tokens, int documents);
  void decode(int context_tokens);
  const std::vector<Row>& rows() const { return rows_; }

 private:
  using Work = std::function<void(int64_t run)>;

  Tensor make(DType type, std::initializer_list<int64_t> dims) {
    const Tensor t = buffers_.emplace_back().tensor(type, dims, context_.device);
    fill_uniform(context_, t, 1.0f, static_cast<uint32_t>(buffers_.size()));
    return t;
  }

  /// As many as are not held by the caches together, when they are read once each.
  std::vector<Linear> linears(int64_t out, int64_t in, bool many) {
    const int64_t bytes = out * in * traits(activation_).block_bytes;
    std::vector<Linear> all(static_cast<size_t>(many ? 1 + kBeyondCaches / bytes : 1));
    Buffer memory;
    const Tensor weight = memory.tensor(activation_, {out, in}, context_.device);
    fill_uniform(context_, weight, 0.1f, 7);
    for (Linear& linear : all) linear = Linear(context_, weight, {options_.format, options_.decode});
    return all;
  }

  void time(const std::string& op, int times, double flops, double bytes, const Work& work) {
    work(0);
    synchronize(context_);
    int64_t run = 0;
    const double seconds = bench::best_seconds(context_, repeats_, [&] {
      for (int64_t i = 0; i < kRunsAtOnce; ++i) work(run++);
      synchronize(context_);
    });
    rows_.push_back({op, times, seconds * 1e3 / kRunsAtOnce, flops, bytes});
  }

  void product(const std::string& op, int times, const Tensor& x, const Tensor& y, bool accumulate) {
    const auto all = linears(y.dim(1), x.dim(1), x.rows() <= Linear::kDecodeRows);
    const double weight = static_cast<double>(y.dim(1)) * static_cast<double>(x.dim(1));
    const double bytes = static_cast<double>(all[0].decode_bytes() + x.bytes() + y.bytes() * (accumulate ? 2 : 1));
    time(op, times, 2.0 * weight * static_cast<double>(x.rows()), bytes,
         [&](int64_t run) { all[static_cast<size_t>(run) % all.size()].forward(context_, x, y, accumulate); });
  }

  void elementwise(const std::string& op, int times, int64_t bytes, const std::function<void()>& work) {
    time(op, times, 0, static_cast<double>(bytes), [&](int64_t) { work(); });
  }

  /// Columns of [T, (heads + 2 groups) · d] as heads.
  Tensor heads_of(const Tensor& qkv, int begin, int heads) const {
    const Tensor columns = qkv.slice_columns(int64_t{begin} * c_.head_dim, int64_t{begin + heads} * c_.head_dim);
    Tensor t(columns.data, qkv.dtype, {qkv.rows(), heads, c_.head_dim}, qkv.device);
    t.row_bytes = qkv.row_bytes;
    return t;
  }

  NormRope norm_and_rope() {
    if (c_.architecture != Architecture::kQwen3) return {&rope_, {}, {}, c_.rms_eps};
    return {&rope_, make(DType::kF32, {c_.head_dim}), make(DType::kF32, {c_.head_dim}), c_.rms_eps};
  }

  void encode_attention(const Tensor& qkv, int document_tokens, int documents);
  void pool(const Tensor& qkv, const Sequences& sequences, int64_t chunks);
  void decode_attention_of(const Tensor& qkv, int context_tokens);

  Context& context_;
  const ModelConfig& c_;
  Transformer::Options options_;
  int repeats_;
  DType activation_, projected_;
  RopeTable rope_;
  std::deque<Buffer> buffers_;
  std::vector<Row> rows_;
};

void OpBench::encode(int document_tokens, int documents) {
  const int64_t T = int64_t{document_tokens} * documents;
  const int layers = c_.n_layers;
  const Tensor x = make(DType::kF32, {T, c_.hidden}), h = make(activation_, {T, c_.hidden});
  const Tensor norm = make(DType::kF32, {c_.hidden});
  const Tensor qkv = make(projected_, {T, c_.q_size() + 2 * c_.kv_size()});
  const Tensor attention = make(activation_, {T, c_.q_size()}), mlp = make(activation_, {T, c_.intermediate});
  const Tensor both = make(activation_, {T, 2 * c_.intermediate});
  elementwise("rms_norm", 2 * layers - 1, x.bytes() + h.bytes(), [&] { rms_norm(context_, x, norm, c_.rms_eps, h); });
  product("qkv", layers, h, qkv, false);
  encode_attention(qkv, document_tokens, documents);
  product("o", layers - 1, attention, x, true);
  product("gate and up", layers - 1, h, both, false);
  const int64_t n = c_.intermediate;
  elementwise("silu_mul", layers - 1, both.bytes() + mlp.bytes(),
              [&] { silu_mul(context_, both.slice_columns(0, n), both.slice_columns(n, 2 * n), mlp); });
  product("down", layers - 1, mlp, x, true);
  const auto routing = static_cast<int>(c_.memory.routing_layers.size());
  product("router k", routing, h, make(DType::kF32, {T, c_.kv_size()}), false);
}

void OpBench::encode_attention(const Tensor& qkv, int document_tokens, int documents) {
  std::vector<int64_t> starts{0};
  std::vector<int32_t> places;
  for (int i = 0; i < documents; ++i) {
    starts.push_back(starts.back() + document_tokens);
    for (int32_t t = 0; t < document_tokens; ++t) places.push_back(t);
  }
  Buffer sequence_memory, position_memory;
  const Sequences sequences = upload(context_, starts, c_.memory.chunk_tokens, sequence_memory);
  const Indices positions = upload(context_, places, position_memory);
  const Tensor q = heads_of(qkv, 0, c_.n_heads), k = heads_of(qkv, c_.n_heads, c_.n_kv_heads),
               v = heads_of(qkv, c_.n_heads + c_.n_kv_heads, c_.n_kv_heads);
  const NormRope how = norm_and_rope();
  elementwise("norm and rotation", c_.n_layers, 2 * q.rows() * (q.dense_row_bytes() + k.dense_row_bytes()),
              [&] { norm_rope(context_, how, positions, q, k); });
  const Tensor out = make(activation_, {q.rows(), c_.n_heads, c_.head_dim});
  const double pairs = 0.5 * static_cast<double>(documents) * document_tokens * (document_tokens + 1.0);
  time("attention", c_.n_layers - 1, 4.0 * pairs * c_.q_size(), static_cast<double>(qkv.bytes() + out.bytes()),
       [&](int64_t) { packed_causal_attention(context_, q, k, v, sequences, out); });
  pool(qkv, sequences, count_chunks(starts, c_.memory.chunk_tokens));
}

void OpBench::pool(const Tensor& qkv, const Sequences& sequences, int64_t chunks) {
  const int64_t begin = c_.q_size(), n = c_.kv_size();
  const Tensor k = qkv.slice_columns(begin, begin + n), out = make(DType::kF32, {chunks, n});
  const auto routing = static_cast<int>(c_.memory.routing_layers.size());
  elementwise("chunk mean", 3 * routing, k.rows() * k.dense_row_bytes() + out.bytes(),
              [&] { chunk_mean(context_, k, sequences, c_.memory.chunk_tokens, out); });
}

void OpBench::decode(int context_tokens) {
  const Tensor x = make(DType::kF32, {1, c_.hidden}), h = make(activation_, {1, c_.hidden});
  const Tensor norm = make(DType::kF32, {c_.hidden});
  const Tensor qkv = make(projected_, {1, c_.q_size() + 2 * c_.kv_size()});
  const Tensor attention = make(activation_, {1, c_.q_size()}), mlp = make(activation_, {1, c_.intermediate});
  const Tensor both = make(activation_, {1, 2 * c_.intermediate}), logits = make(DType::kF32, {1, c_.vocab});
  const Normed in{x, norm, c_.rms_eps};
  const auto fused = [&](const std::string& op, int times, const Tensor& y, const Tensor* gated) {
    const auto all = linears(y.dim(1), c_.hidden, true);
    const auto weight = static_cast<double>(all[0].decode_bytes());
    time(op, times, 2.0 * static_cast<double>(y.dim(1)) * c_.hidden, weight, [&](int64_t run) {
      const Linear& linear = all[static_cast<size_t>(run) % all.size()];
      if (gated != nullptr)
        norm_gate_up(context_, in, linear, h, y, *gated);
      else
        norm_linear(context_, in, linear, h, y);
    });
  };
  fused("1: norm, qkv", c_.n_layers, qkv, nullptr);
  decode_attention_of(qkv, context_tokens);
  product("1: o", c_.n_layers, attention, x, true);
  fused("1: norm, gate and up, silu", c_.n_layers, both, &mlp);
  product("1: down", c_.n_layers, mlp, x, true);
  fused("1: norm, logits", 1, logits, nullptr);
}

void OpBench::decode_attention_of(const Tensor& qkv, int context_tokens) {
  if (!on_cuda(context_.device) || activation_ != DType::kBF16) return;
  ModelConfig one = c_;
  one.n_layers = 1;
  KvCache cache(one, context_tokens + 1, activation_, context_.device);
  cache.advance(context_tokens);
  cache.begin(context_);
  const std::vector<int32_t> place{context_tokens};
  Buffer memory;
  const Indices position = upload(context_, place, memory);
  const DecodeInput in{heads_of(qkv, 0, c_.n_heads), heads_of(qkv, c_.n_heads, c_.n_kv_heads),
                       heads_of(qkv, c_.n_heads + c_.n_kv_heads, c_.n_kv_heads), norm_and_rope(), position.device};
  const Tensor out = make(activation_, {1, c_.n_heads, c_.head_dim});
  const DecodeCache& room = *cache.decoding(0);
  MSA_CHECK(decode_fits(in, {}, room));
  const double bytes = 2.0 * static_cast<double>(room.k.dense_row_bytes()) * context_tokens;
  time("1: attention", c_.n_layers, 0, bytes, [&](int64_t) { decode_attention(context_, in, {}, room, out); });
}

Json to_json(const Row& row, double product_limit, double read_limit) {
  const double least_ms = std::max(row.flops / product_limit, row.bytes / read_limit) / 1e6;
  return {{"op", row.op},
          {"times", row.times},
          {"ms", row.ms},
          {"gflops", row.flops / row.ms / 1e6},
          {"gb_per_second", row.bytes / row.ms / 1e6},
          {"least_ms", least_ms},
          {"share_of_limit", least_ms / row.ms}};
}

}  // namespace

int bench_ops(const Common& common, const BenchOptions& o) {
  Context context = make_context(common);
  const ModelConfig config = named_shape(o.shape.empty() ? "135m" : o.shape);
  const Transformer::Options options = transformer_options(parse_precision(common.dtype), context.device);
  const double product_limit = bench::product_limit(context, options.format), read_limit = bench::read_limit(context);
  OpBench bench(context, config, options, o.repeats);
  bench.encode(o.document_tokens, o.documents);
  bench.decode(o.document_tokens);
  Json rows = Json::array();
  for (const Row& row : bench.rows()) rows.push_back(to_json(row, product_limit, read_limit));
  if (common.json) {
    print_json({{"ops", rows},
                {"device", device_name(context.device)},
                {"attention", packed_attention_backend(context)},
                {"limit_gflops", product_limit},
                {"limit_gb_per_second", read_limit}});
    return 0;
  }
  std::cout << fmt::format("{}: {:.0f} GFLOP/s, {:.0f} GB/s; {} documents of {} tokens, then one token (1:)\n",
                           device_name(context.device), product_limit, read_limit, o.documents, o.document_tokens);
  if (on_cuda(context.device)) std::cout << "attention by " << packed_attention_backend(context) << '\n';
  std::cout << fmt::format("{:28}{:>10}{:>7}{:>10}{:>12}{:>9}{:>8}\n", "op", "ms", "times", "of pass", "GFLOP/s",
                           "GB/s", "share");
  for (const Json& r : rows) {
    const double ms = r["ms"], times = r["times"];
    std::cout << fmt::format("{:28}{:>10.4f}{:>7}{:>10.3f}{:>12.0f}{:>9.0f}{:>8.2f}\n", r["op"].get<std::string>(), ms,
                             r["times"].get<int>(), ms * times, r["gflops"].get<double>(),
                             r["gb_per_second"].get<double>(), r["share_of_limit"].get<double>());
  }
  return 0;
}

}  // namespace msa::cli
