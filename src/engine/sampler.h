// Picks the next token from logits: greedy, or by temperature and nucleus (top-p).
#pragma once
#include <cstdint>
#include <random>
#include <span>

namespace msa {

struct SamplingOptions {
  float temperature = 0.0f;  // 0: greedy
  float top_p = 1.0f;        // in (0, 1]: the smallest set of tokens whose probability reaches it
  uint64_t seed = 0;         // the same seed, model and prompt give the same answer
};

class Sampler {
 public:
  /// Throws Error for a negative temperature or a top_p outside (0, 1].
  explicit Sampler(const SamplingOptions& options);

  /// logits [vocab]; ties go to the lower token id.
  int32_t pick(std::span<const float> logits);

 private:
  SamplingOptions options_;
  std::mt19937_64 random_;
};

int32_t argmax(std::span<const float> logits);

}  // namespace msa
