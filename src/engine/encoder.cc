#include "engine/encoder.h"

#include <cstring>
#include <utility>

namespace msa {
namespace {

/// Rows [begin, end) of source [*, n] (dense) into target, rows `stride` elements apart.
void store_rows(const Tensor& source, int64_t begin, int64_t end, char* target, int64_t stride) {
  const auto row_bytes = static_cast<size_t>(source.row_bytes);
  for (int64_t row = begin; row < end; ++row, target += stride * traits(source.dtype).block_bytes) {
    std::memcpy(target, source.row<char>(row), row_bytes);
  }
}

}  // namespace

BankShape bank_shape(const Transformer& transformer, DType dtype) {
  const ModelConfig& c = transformer.config();
  BankShape shape;
  shape.routing_layers = c.memory.routing_layers;
  shape.kv_heads = c.n_kv_heads;
  shape.head_dim = c.head_dim;
  shape.chunk_tokens = c.memory.chunk_tokens;
  shape.dtype = dtype;
  shape.fingerprint = transformer.fingerprint();
  return shape;
}

Encoder::Encoder(const Transformer& transformer, DType dtype, int pack_tokens)
    : transformer_(transformer), dtype_(dtype), pack_tokens_(pack_tokens) {
  if (pack_tokens_ == 0) pack_tokens_ = on_cuda(transformer.device()) ? kCudaPackTokens : kCpuPackTokens;
  MSA_CHECK(dtype == DType::kF32 || dtype == DType::kBF16);
}

std::vector<EncodedDocument> Encoder::encode(Context& context, std::span<const DocumentTokens> documents,
                                             const std::function<void(int64_t)>& progress) {
  std::vector<EncodedDocument> out;
  out.reserve(documents.size());
  Pack pending;  // started; none while its stage is null
  const auto complete_pending = [&] {
    if (pending.stage == nullptr) return;
    complete(context, pending, out);
    if (progress) progress(pending.starts.back());
    pending.stage.reset();
  };
  for (size_t begin = 0; begin < documents.size();) {
    size_t end = begin;
    int64_t tokens = 0;
    do {
      tokens += static_cast<int64_t>(documents[end++].size());
    } while (end < documents.size() && tokens + static_cast<int64_t>(documents[end].size()) <= pack_tokens_);
    Pack pack = start(context, documents.subspan(begin, end - begin));
    complete_pending();  // while the GPU works on the pack just started
    pending = std::move(pack);
    if (!on_cuda(context.device)) complete_pending();
    begin = end;
  }
  complete_pending();
  return out;
}

/// Runs the layers; on CUDA it returns before they have run.
Encoder::Pack Encoder::start(Context& context, std::span<const DocumentTokens> documents) {
  Pack pack;
  pack.documents = documents;
  pack.starts = {0};
  std::vector<int32_t> tokens, positions;
  for (const DocumentTokens& d : documents) {
    if (d.empty()) throw Error("the document has no tokens", "encode", "leave out empty documents");
    for (size_t i = 0; i < d.size(); ++i) positions.push_back(static_cast<int32_t>(i));
    tokens.insert(tokens.end(), d.begin(), d.end());
    pack.starts.push_back(static_cast<int64_t>(tokens.size()));
  }
  EncodeMemory& memory = memory_[started_++ % memory_.size()];
  pack.stage = std::make_unique<EncodeStage>(transformer_.config(), pack.starts, memory);
  transformer_.forward(context, workspace_, tokens, positions, *pack.stage);
  pack.stage->finish(context, dtype_);
  return pack;
}

void Encoder::complete(Context& context, Pack& pack, std::vector<EncodedDocument>& out) const {
  pack.stage->download(context);
  const int64_t chunk_tokens = transformer_.config().memory.chunk_tokens;
  std::vector<int64_t> chunks{0};  // the first of each document
  for (const DocumentTokens& d : pack.documents) {
    chunks.push_back(chunks.back() + (static_cast<int64_t>(d.size()) + chunk_tokens - 1) / chunk_tokens);
  }
  MSA_CHECK(chunks.back() == pack.stage->n_chunks());
  const size_t first = out.size();
  out.resize(first + pack.documents.size());
  context.pool.parallel_for(static_cast<int64_t>(pack.documents.size()), 1, [&](int64_t begin, int64_t end, int) {
    for (auto i = static_cast<size_t>(begin); i < static_cast<size_t>(end); ++i) {
      const auto n_tokens = static_cast<int64_t>(pack.documents[i].size());
      out[first + i] = cut(*pack.stage, chunks[i], chunks[i + 1] - chunks[i], n_tokens);
    }
  });
}

EncodedDocument Encoder::cut(const EncodeStage& stage, int64_t first_chunk, int64_t n_chunks, int64_t n_tokens) const {
  const ModelConfig& config = transformer_.config();
  const int64_t n = config.kv_size();
  const int64_t size = traits(dtype_).block_bytes;
  EncodedDocument document;
  document.n_tokens = n_tokens;
  document.n_chunks = n_chunks;
  const int64_t end = first_chunk + n_chunks;
  for (size_t layer = 0; layer < config.memory.routing_layers.size(); ++layer) {
    const EncodeStage::Pooled pooled = stage.pooled(static_cast<int>(layer));
    Buffer keys(static_cast<size_t>(n_chunks * n * size));
    Buffer content(static_cast<size_t>(n_chunks * 2 * n * size));
    auto* to = static_cast<char*>(content.data());
    store_rows(pooled.router_k, first_chunk, end, static_cast<char*>(keys.data()), n);
    store_rows(pooled.k, first_chunk, end, to, 2 * n);
    store_rows(pooled.v, first_chunk, end, to + n * size, 2 * n);
    document.keys.push_back(std::move(keys));
    document.content.push_back(std::move(content));
  }
  return document;
}

}  // namespace msa
