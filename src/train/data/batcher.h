// Batches out of data sets.
#pragma once
#include <cstdint>

#include "tokenizer/template.h"
#include "tokenizer/tokenizer.h"
#include "train/batch.h"
#include "train/data/recipe.h"
#include "train/data/samples.h"
#include "train/data/training_data.h"

namespace msa::train {

/// Const: threads share it.
class Batcher {
 public:
  /// `data` and `prompts` outlive the batcher. Processes that train in parallel take different seeds.
  Batcher(const DataRecipe& recipe, const TrainingData& data, const Tokenizer& tokenizer, const PromptTemplate& prompts,
          uint64_t seed);

  /// Depends on seed and step alone, so a resumed run sees the batches that the first would have seen. The pool holds
  /// the gold documents of all samples, their neighbours and hard negatives, then documents drawn by the sets' weights;
  /// at most pool_tokens, then extra_tokens more that are encoded forward-only. Fewer samples than the recipe says when
  /// their gold documents do not fit. Throws Error when not one fits, or the ids are used up.
  Batch make(int64_t step) const;

 private:
  class Draft;

  DataRecipe recipe_;
  const TrainingData& data_;
  Tokenizer tokenizer_;
  const PromptTemplate& prompts_;
  SampleBuilder builder_;
  uint64_t seed_;
  std::vector<double> question_weights_;  // [sets]
  std::vector<double> rerank_weights_;    // [sets]
  std::vector<double> filler_weights_;    // [datasets]
};

}  // namespace msa::train
