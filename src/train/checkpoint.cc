#include "train/checkpoint.h"

#include <vector>

#include "io/safetensors.h"

namespace msa::train {
namespace {

using torch::Tensor;

// Small checkpoints keep a moment as the logarithm of its size: 1 … 127 in quarters of an octave up to 2^-0.25, 0 for
// 0.
constexpr double kStepsPerOctave = 4;
constexpr double kLeastOctave = -32;

Tensor to_codes(const Tensor& size) {
  const Tensor code = ((size.log2() - kLeastOctave) * kStepsPerOctave).round().clamp(1, 127);
  return torch::where(size > 0, code, torch::zeros({1}));
}

Tensor from_codes(const Tensor& codes) {
  const Tensor size = torch::exp2(codes / kStepsPerOctave + kLeastOctave);
  return torch::where(codes > 0, size, torch::zeros({1}));
}

/// The sign of the first moment stands in the sign of its code.
Tensor pack_first(const Tensor& first) { return (to_codes(first.abs()) * first.sign()).to(torch::kChar); }
Tensor unpack_first(const Tensor& codes) {
  const Tensor wide = codes.to(torch::kFloat);
  return from_codes(wide.abs()) * wide.sign();
}

/// The second moment as one root for each two neighbours.
Tensor pack_second(const Tensor& second) {
  const Tensor even = torch::constant_pad_nd(second, {0, second.numel() % 2}, 0);
  return to_codes(even.view({-1, 2}).mean(1).sqrt()).to(torch::kChar);
}
Tensor unpack_second(const Tensor& codes, int64_t n) {
  return from_codes(codes.to(torch::kFloat)).square().repeat_interleave(2).slice(0, 0, n);
}

msa::Tensor view_of(const Tensor& t) {
  const DType type = t.scalar_type() == torch::kFloat  ? DType::kF32
                     : t.scalar_type() == torch::kHalf ? DType::kF16
                                                       : DType::kI8;
  return msa::Tensor(t.data_ptr(), type, {t.numel()});
}

Tensor read(const SafetensorsFile& file, const std::string& name, int64_t n) {
  const msa::Tensor view = file.get(name);
  const bool is_known = view.dtype == DType::kF32 || view.dtype == DType::kF16 || view.dtype == DType::kI8;
  if (!is_known || view.elements() != n) {
    throw Error("holds " + view.describe() + ", expected " + std::to_string(n) + " elements",
                file.path() + ", tensor " + name, "resume with the recipe that wrote it");
  }
  const auto type = view.dtype == DType::kF32 ? torch::kFloat : view.dtype == DType::kF16 ? torch::kHalf : torch::kChar;
  return torch::from_blob(view.data, {n}, type).clone();
}

const std::string& need(const SafetensorsFile& file, const std::string& key) {
  const auto found = file.metadata().find(key);
  if (found == file.metadata().end()) throw Error("is no checkpoint: no " + key, file.path());
  return found->second;
}

}  // namespace

void save_checkpoint(const std::string& path, const CheckpointState& state, const Parameters& parameters,
                     const AdamW& optimizer, bool small) {
  torch::NoGradGuard no_gradients;
  std::vector<Tensor> held;
  std::vector<NamedTensor> tensors;
  const auto add = [&](const std::string& name, const Tensor& t) {
    held.push_back(t.contiguous());
    tensors.emplace_back(name, view_of(held.back()));
  };
  for (const Parameters::Group& g : parameters.groups()) {
    add(g.name + ".values", small ? g.values.cpu().to(torch::kHalf) : g.values.cpu());
  }
  for (const AdamW::Moments& m : optimizer.moments()) {
    add(m.group + ".first", small ? pack_first(m.first.cpu()) : m.first.cpu());
    add(m.group + ".second", small ? pack_second(m.second.cpu()) : m.second.cpu());
  }
  write_safetensors(path, tensors,
                    {{"step", std::to_string(state.step)},
                     {"tokens", std::to_string(state.tokens)},
                     {"seconds", std::to_string(state.seconds)},
                     {"recipe", state.recipe_hash},
                     {"moments", small ? "logarithms" : "float32"}});
}

CheckpointState load_checkpoint(const std::string& path, const std::string& recipe_hash, const Parameters& parameters,
                                AdamW& optimizer) {
  torch::NoGradGuard no_gradients;
  const SafetensorsFile file = SafetensorsFile::open(path);
  CheckpointState state;
  try {
    state.step = std::stoll(need(file, "step"));
    state.tokens = std::stoll(need(file, "tokens"));
    state.seconds = std::stod(need(file, "seconds"));
  } catch (const std::logic_error&) {
    throw Error("its numbers are broken", path, "remove it to begin anew");
  }
  state.recipe_hash = need(file, "recipe");
  if (state.recipe_hash != recipe_hash) {
    throw Error("was written under another recipe", path, "restore that recipe, or choose another run.output");
  }
  for (const Parameters::Group& g : parameters.groups()) {
    Tensor(g.values).copy_(read(file, g.name + ".values", g.values.numel()));
  }
  for (AdamW::Moments& m : optimizer.moments()) {
    const int64_t n = m.first.numel();
    if (need(file, "moments") == "float32") {
      m.first.copy_(read(file, m.group + ".first", n));
      m.second.copy_(read(file, m.group + ".second", n));
    } else {
      m.first.copy_(unpack_first(read(file, m.group + ".first", n)));
      m.second.copy_(unpack_second(read(file, m.group + ".second", (n + 1) / 2), n));
    }
  }
  return state;
}

}  // namespace msa::train
