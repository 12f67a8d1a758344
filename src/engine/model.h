// A model directory made ready: weights, tokenizer, prompt template, and the template head's keys and values.
#pragma once
#include <memory>
#include <string>

#include "core/context.h"
#include "model/transformer.h"
#include "tokenizer/template.h"
#include "tokenizer/tokenizer.h"

namespace msa {

enum class Precision {
  kAuto,  // bf16 on CUDA and where the processor multiplies it natively, else float32; on a CPU decoding is from 8-bit
          // or the file's own blocks
  kF32,   // float32 throughout: conformance
  kBF16,  // bf16 products, float32 accumulation
};

/// Const after loading: any number of sessions share it.
class Model {
 public:
  /// On the context's device. Throws Error naming the file and what is wrong with it.
  Model(Context& context, const std::string& directory, Precision precision);

  const std::string& directory() const { return directory_; }
  const ModelConfig& config() const { return transformer_->config(); }
  const Transformer& transformer() const { return *transformer_; }
  const Tokenizer& tokenizer() const { return *tokenizer_; }
  const PromptTemplate& prompts() const { return *prompts_; }
  /// Keys and values of the template head at positions 0, 1, …: the shared prefix of every query (stage 2).
  const KvCache& head() const { return head_; }
  /// What banks of this model are marked with: weights, tokenizer, template, chunk size, routing layers.
  const std::string& fingerprint() const { return transformer_->fingerprint(); }

 private:
  std::string directory_;
  std::unique_ptr<Transformer> transformer_;
  std::unique_ptr<Tokenizer> tokenizer_;
  std::unique_ptr<PromptTemplate> prompts_;
  KvCache head_;
};

Precision parse_precision(const std::string& name);  // "auto", "f32", "bf16"; throws Error otherwise
Transformer::Options transformer_options(Precision precision, Device device);

/// Runs a template head alone, nothing before it: the first rows of every query's cache.
KvCache run_head(Context& context, const Transformer& transformer, std::span<const int32_t> head);

/// The model directory to use: `given`, else $MSA_MODEL, else the default model beside the program.
/// Throws Error when none is there.
std::string find_model_directory(const std::string& given);

}  // namespace msa
