// Times routing keys of a bank in host memory on this machine's GPU: bringing them there, scanning them wherever they
// lie, and following the bank after an addition.
#include <CLI/CLI.hpp>
#include <algorithm>
#include <chrono>
#include <cstdio>
#include <functional>
#include <vector>

#include "bank/bank.h"
#include "core/copy.h"
#include "router/device_keys.h"

namespace msa {
namespace {

struct Options {
  int64_t documents = 8000;
  int chunks = 8;  // a document
  int layers = 2;
  int kv_heads = 8, head_dim = 128;
  int query_tokens = 32;
  int rounds = 5;
};

/// Any bits that are numbers near one.
void fill(Buffer& buffer, int64_t elements, uint32_t& state) {
  buffer.reserve(static_cast<size_t>(elements) * sizeof(uint16_t));
  auto* const out = static_cast<uint16_t*>(buffer.data());
  for (int64_t i = 0; i < elements; ++i) {
    state = state * 1664525u + 1013904223u;
    out[i] = static_cast<uint16_t>(0x3f00u + (state >> 24) + (state >> 16 & 0x8000u));
  }
}

void add_documents(Bank& bank, int64_t count, int chunks, uint32_t& state) {
  const int64_t width = bank.shape().row_elements();
  std::vector<DocumentInput> inputs;
  std::vector<EncodedDocument> documents(static_cast<size_t>(count));
  const std::vector<DocumentId> ids = bank.reserve_ids(count);
  for (int64_t i = 0; i < count; ++i) {
    EncodedDocument& d = documents[static_cast<size_t>(i)];
    d.n_tokens = int64_t{chunks} * bank.shape().chunk_tokens;
    d.n_chunks = chunks;
    for (int layer = 0; layer < bank.shape().n_layers(); ++layer) {
      fill(d.keys.emplace_back(), chunks * width, state);
      fill(d.content.emplace_back(), 2 * chunks * width, state);
    }
    const std::string name = std::to_string(ids[static_cast<size_t>(i)]);
    inputs.push_back({name, name, "", "{}"});
  }
  MSA_CHECK(bank.add(ids, inputs, documents).committed());
}

double ms_of(Context& context, const std::function<void()>& work) {
  synchronize(context);
  const auto start = std::chrono::steady_clock::now();
  work();
  synchronize(context);
  return std::chrono::duration<double, std::milli>(std::chrono::steady_clock::now() - start).count();
}

class Timing {
 public:
  explicit Timing(const Options& options) : o_(options), context_(0, {DeviceType::kCuda, 0}) {
    BankShape shape;
    for (int layer = 0; layer < o_.layers; ++layer) shape.routing_layers.push_back(layer);
    shape.kv_heads = o_.kv_heads;
    shape.head_dim = o_.head_dim;
    shape.fingerprint = "random";
    bank_ = Bank::in_memory(shape);
    for (int64_t done = 0; done < o_.documents; done += 1000) {
      add_documents(*bank_, std::min<int64_t>(1000, o_.documents - done), o_.chunks, state_);
    }
  }

  void run() {
    const KeySizes sizes{KeyRows(bank_->snapshot()).n_rows(), o_.layers, o_.kv_heads * o_.head_dim};
    gigabytes_ = static_cast<double>(sizes.rows) * sizes.layers * sizes.width * 2 / 1e9;
    std::printf("%s, %lld chunks of %d, %d layers: %.2f GB of bf16 keys, %d query tokens\n",
                device_name(context_.device).c_str(), static_cast<long long>(sizes.rows), sizes.width, sizes.layers,
                gigabytes_, o_.query_tokens);
    for (const KeyFormat format : {KeyFormat::kBF16, KeyFormat::kInt8, KeyFormat::kInt4}) {
      measure(format, 0);
      measure(format, static_cast<int64_t>(gigabytes_ * (format == KeyFormat::kBF16 ? 0.5e9 : 0.65e9)));
    }
    measure(KeyFormat::kBF16, 1);
  }

 private:
  void measure(KeyFormat format, int64_t gpu_memory) {
    DeviceOptions options;
    options.keys = format;
    options.gpu_memory = gpu_memory;
    std::shared_ptr<DeviceKeys> keys;
    const double upload = ms_of(context_, [&] { device_keys(context_, bank_->snapshot(), keys, options); });
    std::printf("%s\n  brought there in %.1f ms, %.1f GB/s\n", describe(keys->placement(), keys->sizes()).c_str(),
                upload,
                gigabytes_ * static_cast<double>(keys->placement().on_gpu()) / static_cast<double>(keys->sizes().rows) /
                    upload * 1e3);
    scan(*keys);
    add_documents(*bank_, 1, o_.chunks, state_);
    const int64_t before = keys->uploaded_rows();
    const double follow = ms_of(context_, [&] { device_keys(context_, bank_->snapshot(), keys, options); });
    std::printf("  one document added: followed in %.2f ms, %lld rows copied\n", follow,
                static_cast<long long>(keys->uploaded_rows() - before));
  }

  void scan(const DeviceKeys& keys) {
    const int64_t slots = keys.n_slots(), width = int64_t{o_.kv_heads} * o_.head_dim;
    Buffer host, q_memory, scores_memory, count;
    auto* const values = host.tensor(DType::kF32, {o_.query_tokens, width}).as<float>();
    for (int64_t i = 0; i < o_.query_tokens * width; ++i) values[i] = static_cast<float>((i * 7919) % 101 - 50) * 0.02f;
    const Tensor q = to_device(context_, Tensor(values, DType::kF32, {o_.query_tokens, width}), q_memory);
    const Tensor all = scores_memory.tensor(DType::kF32, {3, slots}, context_.device);
    const auto row = [&](int64_t i) { return all.slice_rows(i, i + 1).reshape({slots}); };
    const Tensor candidates = count.tensor(DType::kI32, {1}, context_.device);
    double best_score = 1e30, best_route = 1e30;
    for (int i = 0; i < o_.rounds; ++i) {
      best_score = std::min(best_score, ms_of(context_, [&] {
                              for (int layer = 0; layer < o_.layers; ++layer)
                                keys.score(context_, layer, q, {}, row(0));
                            }));
      if (!keys.has_bounds()) continue;
      best_route = std::min(best_route, ms_of(context_, [&] {
                              for (int layer = 0; layer < o_.layers; ++layer)
                                keys.route(context_, layer, q, {}, 16, row(0), {row(1), row(2), candidates});
                            }));
    }
    std::printf("  all scores in %.2f ms, %.1f GB/s\n", best_score, gigabytes_ / best_score * 1e3);
    if (!keys.has_bounds()) return;
    int32_t n = 0;
    copy(context_, candidates, Tensor(&n, DType::kI32, {1}));
    std::printf("  the 16 best in %.2f ms, %d candidates in the last layer\n", best_route, n);
  }

  const Options o_;
  Context context_;
  std::unique_ptr<Bank> bank_;
  uint32_t state_ = 1;
  double gigabytes_ = 0;
};

}  // namespace
}  // namespace msa

int main(int argc, char** argv) {
  msa::Options o;
  CLI::App app("Times a bank's routing keys on this machine's GPU, wherever they lie");
  app.add_option("--documents", o.documents)->capture_default_str()->check(CLI::PositiveNumber);
  app.add_option("--chunks", o.chunks, "of a document")->capture_default_str()->check(CLI::PositiveNumber);
  app.add_option("--layers", o.layers)->capture_default_str()->check(CLI::PositiveNumber);
  app.add_option("--kv-heads", o.kv_heads)->capture_default_str()->check(CLI::PositiveNumber);
  app.add_option("--head-dim", o.head_dim)->capture_default_str()->check(CLI::PositiveNumber);
  app.add_option("--query", o.query_tokens, "query tokens")->capture_default_str()->check(CLI::PositiveNumber);
  app.add_option("--rounds", o.rounds, "runs, of which the best is printed")->capture_default_str();
  CLI11_PARSE(app, argc, argv);
  try {
    msa::Timing(o).run();
  } catch (const std::exception& error) {
    std::fprintf(stderr, "error: %s\n", error.what());
    return 1;
  }
  return 0;
}
