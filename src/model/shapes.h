// Models of known shapes with random weights: for measurements that need no weights file.
#pragma once
#include <string>

#include "core/context.h"
#include "model/weights.h"

namespace msa {

/// "4b" (the public MSA-4B checkpoint) or "135m" (the default model). Throws Error for another name.
ModelConfig named_shape(const std::string& name);

/// BF16 matrices on the context's device, uniform with variance 1 / in; norms of ones in host memory.
ModelWeights random_weights(Context& context, const ModelConfig& config, uint32_t seed);

}  // namespace msa
