// The text side of a model directory.
#pragma once
#include <string>

#include "tokenizer/template.h"
#include "tokenizer/tokenizer.h"

namespace msa {

/// From tokenizer.json, else base.gguf (or the .gguf file itself). Throws Error when there is neither.
Tokenizer load_tokenizer(const std::string& model);

/// From msa_template.json, else the public checkpoint's prompts.
PromptTemplate load_prompts(const std::string& model, const Tokenizer& tokenizer);

}  // namespace msa
