// Conformance: the engine against recorded outputs of the public reference code on small checkpoints.
#pragma once
#include <map>
#include <string>

#include "engine/model.h"

namespace msa {

struct TensorDeviation {
  double max_abs = 0;
  double max_rel = 0;   // largest |got - want| / max(|want|, 1e-3 · largest |want|)
  double rel_norm = 0;  // ‖got - want‖ / ‖want‖: what the tolerance applies to
  bool ok = false;
};

struct ConformanceReport {
  bool ok = true;
  std::map<std::string, TensorDeviation> tensors;  // "stage1.layer3.k", "stage2.logits", …
};

/// Tolerances on rel_norm. In bf16 a selection may differ only by documents whose scores lie this close together.
constexpr double kConformanceF32 = 2e-4;
constexpr double kConformanceBF16 = 4e-2;

/// Runs the inference case in `directory` (config.json, model.safetensors, case.json, expected.safetensors).
/// Throws Error when a file is missing or malformed, or when it is a training case.
ConformanceReport run_conformance(Context& context, const std::string& directory, Precision precision);

}  // namespace msa
