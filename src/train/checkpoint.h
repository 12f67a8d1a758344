// What a run needs to go on as if it had never stopped.
#pragma once
#include <cstdint>
#include <string>

#include "train/optimizer.h"
#include "train/parameters.h"

namespace msa::train {

struct CheckpointState {
  int64_t step = 0;         // steps done
  int64_t tokens = 0;       // trained on so far
  double seconds = 0;       // spent so far
  std::string recipe_hash;  // of everything that decides the run's course
};

/// Writes `path` atomically: trained tensors and both moments in float32, 12 bytes each; `small`: tensors in float16,
/// moments as 8-bit logarithms (the second one shared by two neighbours), 3.5 bytes, so that it moves easily.
void save_checkpoint(const std::string& path, const CheckpointState& state, const Parameters& parameters,
                     const AdamW& optimizer, bool small);

/// Throws Error when the file is damaged or of another model or recipe.
CheckpointState load_checkpoint(const std::string& path, const std::string& recipe_hash, const Parameters& parameters,
                                AdamW& optimizer);

}  // namespace msa::train
