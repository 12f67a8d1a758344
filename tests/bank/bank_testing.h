// Random documents for the tests of bank and router.
#pragma once
#include <unistd.h>

#include <cstring>
#include <filesystem>
#include <random>
#include <string>
#include <vector>

#include "bank/bank.h"

namespace msa::testing {

inline BankShape small_shape(DType dtype = DType::kBF16) {
  BankShape shape;
  shape.routing_layers = {2, 3, 5};
  shape.kv_heads = 2;
  shape.head_dim = 10;
  shape.chunk_tokens = 4;
  shape.dtype = dtype;
  shape.fingerprint = "model-a";
  return shape;
}

inline void fill(Buffer& buffer, int64_t elements, DType dtype, std::mt19937& random) {
  std::normal_distribution<float> normal;
  buffer.reserve(static_cast<size_t>(elements * traits(dtype).block_bytes));
  for (int64_t i = 0; i < elements; ++i) {
    const float x = normal(random);
    if (dtype == DType::kF32) static_cast<float*>(buffer.data())[i] = x;
    if (dtype == DType::kBF16) static_cast<bf16*>(buffer.data())[i] = to_bf16(x);
  }
}

inline EncodedDocument random_document(const BankShape& shape, int64_t n_tokens, std::mt19937& random) {
  EncodedDocument document;
  document.n_tokens = n_tokens;
  document.n_chunks = (n_tokens + shape.chunk_tokens - 1) / shape.chunk_tokens;
  document.keys.resize(shape.routing_layers.size());
  document.content.resize(shape.routing_layers.size());
  for (Buffer& keys : document.keys) fill(keys, document.n_chunks * shape.row_elements(), shape.dtype, random);
  for (Buffer& content : document.content) {
    fill(content, 2 * document.n_chunks * shape.row_elements(), shape.dtype, random);
  }
  return document;
}

struct Batch {
  std::vector<DocumentId> ids;
  std::vector<DocumentInput> inputs;
  std::vector<EncodedDocument> documents;
};

/// `count` documents of 1 to 6 chunks, external ids "doc-<id>" in namespace "ns".
inline Batch random_batch(Bank& bank, int64_t count, std::mt19937& random) {
  Batch batch;
  batch.ids = bank.reserve_ids(count);
  std::uniform_int_distribution<int64_t> tokens(1, 6 * bank.shape().chunk_tokens);
  for (const DocumentId id : batch.ids) {
    const std::string number = std::to_string(id);
    batch.inputs.push_back({"text of document " + number, "doc-" + number, "ns", "{\"n\": " + number + "}"});
    batch.documents.push_back(random_document(bank.shape(), tokens(random), random));
  }
  return batch;
}

/// A new folder's name in memory where the system has such a place: these tests write thousands of files.
inline std::filesystem::path folder_in_memory(const std::string& name) {
  const std::filesystem::path shared = "/dev/shm";
  const bool usable = ::access(shared.c_str(), W_OK | X_OK) == 0;
  return (usable ? shared : std::filesystem::temp_directory_path()) / (name + "." + std::to_string(::getpid()));
}

inline AddResult add(Bank& bank, const Batch& batch) { return bank.add(batch.ids, batch.inputs, batch.documents); }

}  // namespace msa::testing
