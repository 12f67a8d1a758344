// What is trained, in a few flat buffers: one optimiser step, one norm, one exchange between processes for all of it.
#pragma once
#include <torch/torch.h>

#include <map>
#include <string>
#include <vector>

namespace msa::train {

/// Float32 tensors that are trained, by name; each is a leaf whose value and gradient are views of its group's buffers.
class Parameters {
 public:
  struct Group {
    std::string name;         // "adapter", "router", "layers", "weights"
    torch::Tensor values;     // float32 [n]
    torch::Tensor gradients;  // float32 [n]
  };

  /// Before finish() only.
  void add(const std::string& group, const std::string& name, const torch::Tensor& initial);
  /// Moves everything to the device and into the flat buffers.
  void finish(torch::Device device);

  torch::Tensor get(const std::string& name) const { return leaves_.at(name); }
  bool contains(const std::string& name) const { return leaves_.contains(name); }
  const std::map<std::string, torch::Tensor>& leaves() const { return leaves_; }
  const std::vector<Group>& groups() const { return groups_; }
  int64_t count() const;

  void zero_gradients() const;
  /// Euclidean norm over all gradients, a scalar on the device.
  torch::Tensor gradient_norm() const;

 private:
  struct Entry {
    std::string group, name;
    torch::Tensor initial;
  };
  std::vector<Entry> entries_;
  std::vector<Group> groups_;
  std::map<std::string, torch::Tensor> leaves_;
};

}  // namespace msa::train
