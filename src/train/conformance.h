// The trainer against recorded losses and gradients of the public training code.
#pragma once
#include <string>
#include <vector>

#include "train/network.h"

namespace msa::train {

struct TensorCheck {
  std::string name;
  double relative = 0;  // ‖got − want‖ / ‖want‖
  double tolerance = 0;
  bool ok = false;
};

constexpr double kLossTolerance = 1e-5;
constexpr double kGradientTolerance = 1e-3;

/// Runs the training case in `directory` (config.json, model.safetensors, case.json, expected.safetensors) in float32
/// and compares lm_loss, aux_loss, loss and every gradient. Throws Error when a file is missing or malformed.
std::vector<TensorCheck> run_conformance(const std::string& directory, torch::Device device);

}  // namespace msa::train
