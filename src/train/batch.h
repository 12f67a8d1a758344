// The input of one training step, on the host: plain numbers, no tensors of libtorch.
#pragma once
#include <cstdint>
#include <vector>

namespace msa::train {

enum class SampleKind : uint8_t {
  kRetrieve,     // question → ids of the documents that answer it (one hop of a chain)
  kAnswer,       // question and fetched documents → end of retrieval, answer
  kRead,         // the same from the fetched documents alone, no memory
  kRerank,       // question and one candidate's text → whether it is worth citing, no memory
  kReconstruct,  // a document's content alone → its text or its id
  kLanguage,     // plain text, no memory
};

/// Shared-memory batch: all samples see one pool of documents, so every document is a negative of most samples.
struct Batch {
  // Pool: sequence 0 is the template head, sequence 1 + j is document j with the template around it.
  std::vector<int32_t> tokens;  // [T]
  std::vector<int64_t> starts;  // [documents() + 2], offsets into tokens
  int64_t n_trained = 0;        // documents [0, n_trained) take part in the backward pass; the rest are negatives that
                                // are encoded forward-only with the current weights

  // Samples, packed without padding. Positions start at head + model top_k, as in the engine.
  std::vector<int32_t> sample_tokens;  // [S]
  std::vector<int64_t> sample_starts;  // [samples() + 1]
  std::vector<uint8_t> routed;         // [S] 1: this token routes
  std::vector<uint8_t> predicted;      // [S] 1: the language-model loss covers this token, given those before it;
                                       // 0 for the first of a sample
  std::vector<SampleKind> kinds;       // [samples()]

  // Gold documents of sample i: positives[positive_starts[i] … positive_starts[i + 1]). None: no routing loss.
  std::vector<int32_t> positives;
  std::vector<int64_t> positive_starts;  // [samples() + 1]
  // Documents that are neither gold nor wrong for sample i (same text, unlabelled answers): left out of its loss.
  std::vector<int32_t> ignored;
  std::vector<int64_t> ignored_starts;  // [samples() + 1]
  // Soft targets of a teacher: scores over some documents of the pool, higher is better. Empty without a teacher.
  std::vector<int32_t> teacher_documents;
  std::vector<float> teacher_scores;
  std::vector<int64_t> teacher_starts;  // [samples() + 1]

  // Candidates of one question each: samples rerank_starts[g] … rerank_starts[g + 1) are of kind kRerank, consecutive,
  // the first of them with a document that answers, the others with wrong ones.
  std::vector<int64_t> rerank_starts;  // [groups + 1]; empty without any

  int top_k_documents = 16;  // attended in each routing layer this step (curriculum)

  int64_t documents() const { return static_cast<int64_t>(starts.size()) - 2; }
  int64_t samples() const { return static_cast<int64_t>(sample_starts.size()) - 1; }
};

}  // namespace msa::train
