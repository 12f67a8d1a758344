// Which kernels serve.
#pragma once
#include <string>

#include "core/context.h"

namespace msa {

/// What computes packed_causal_attention in bf16 with heads of 64 or 128: "cuDNN 9.19.0", or "own kernels". cuDNN on
/// Hopper and later, where the build and the machine have it and MSA_CUDNN is not 0.
std::string packed_attention_backend(Context& context);

}  // namespace msa
