// The tokenizer inside a GGUF file as the content of a tokenizer.json.
#pragma once
#include <nlohmann/json_fwd.hpp>

#include "io/gguf.h"

namespace msa {

/// Byte-level BPE in the layout of Hugging Face tokenizers. Throws Error on another kind of tokenizer.
nlohmann::ordered_json tokenizer_to_json(const GgufFile& file);

}  // namespace msa
