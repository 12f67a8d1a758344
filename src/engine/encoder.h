// Stage 1: documents in, compressed keys and values out.
#pragma once
#include <array>
#include <cstdint>
#include <functional>
#include <memory>
#include <span>
#include <vector>

#include "bank/segment.h"
#include "engine/model.h"

namespace msa {

/// The bank shape that this model's encodings have.
BankShape bank_shape(const Transformer& transformer, DType dtype = DType::kBF16);

/// Tokens of one document as the model is to see it, template included.
using DocumentTokens = std::vector<int32_t>;

/// Packs documents without padding, at most about `pack_tokens` at a time, and runs each pack through the layers.
class Encoder {
 public:
  static constexpr int kCpuPackTokens = 2048;
  static constexpr int kCudaPackTokens = 32768;  // a GPU needs more rows to be busy

  /// `pack_tokens` 0 takes the device's own.
  Encoder(const Transformer& transformer, DType dtype, int pack_tokens = 0);

  /// Encodes all documents, in order. `progress` (optional) is called with the tokens done since the last call.
  /// Throws Error when a document is longer than the model's context or empty.
  std::vector<EncodedDocument> encode(Context& context, std::span<const DocumentTokens> documents,
                                      const std::function<void(int64_t)>& progress = {});

 private:
  struct Pack {
    std::span<const DocumentTokens> documents;
    std::vector<int64_t> starts;
    std::unique_ptr<EncodeStage> stage;
  };
  Pack start(Context& context, std::span<const DocumentTokens> documents);
  void complete(Context& context, Pack& pack, std::vector<EncodedDocument>& out) const;
  EncodedDocument cut(const EncodeStage& stage, int64_t first_chunk, int64_t n_chunks, int64_t n_tokens) const;

  const Transformer& transformer_;
  DType dtype_;
  int pack_tokens_;
  Workspace workspace_;
  std::array<EncodeMemory, 2> memory_;  // of a pack under way and of the one before
  size_t started_ = 0;
};

}  // namespace msa
