// A whole training run: recipe in, adapter, checkpoint and metrics out.
#pragma once
#include <functional>
#include <memory>
#include <optional>

#include "comm/communicator.h"
#include "train/bank_recall.h"
#include "train/recipe.h"

namespace msa::train {

enum class RunEnd { kFinished, kTimeLimit, kInterrupted };

struct RunResult {
  RunEnd end = RunEnd::kFinished;
  int64_t step = 0;
  std::optional<BankRecall> recall;  // of the first evaluation set, at the last evaluation
};

/// Everything is loaded and checked by the constructor, so that a run fails before it begins or not at all. If the
/// output folder holds a checkpoint of this recipe, the run goes on from there.
class Trainer {
 public:
  /// Ranks of `communicator` (which outlives the trainer) train together: each makes batches of its own, gradients are
  /// averaged, rank 0 measures, logs and saves.
  Trainer(Recipe recipe, Communicator& communicator);
  ~Trainer();
  Trainer(const Trainer&) = delete;
  Trainer& operator=(const Trainer&) = delete;

  /// `stop` is asked after every step; true on any rank saves and ends the run. Throws Error when the loss stops being
  /// a number.
  RunResult run(const std::function<bool()>& stop);

 private:
  struct Impl;
  std::unique_ptr<Impl> impl_;
};

}  // namespace msa::train
