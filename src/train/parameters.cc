#include "train/parameters.h"

#include <algorithm>

#include "core/error.h"

namespace msa::train {

void Parameters::add(const std::string& group, const std::string& name, const torch::Tensor& initial) {
  MSA_CHECK(groups_.empty());
  entries_.push_back({group, name, initial});
}

void Parameters::finish(torch::Device device) {
  torch::NoGradGuard no_gradients;
  std::map<std::string, std::vector<const Entry*>> members;
  for (const Entry& e : entries_) members[e.group].push_back(&e);
  for (const auto& [name, list] : members) {
    int64_t n = 0;
    for (const Entry* e : list) n += e->initial.numel();
    const auto options = torch::TensorOptions().dtype(torch::kFloat).device(device);
    groups_.push_back({name, torch::empty({n}, options), torch::zeros({n}, options)});
    int64_t at = 0;
    for (const Entry* e : list) {
      const auto view = [&](const torch::Tensor& flat) {
        return flat.slice(0, at, at + e->initial.numel()).view(e->initial.sizes()).detach();
      };
      torch::Tensor leaf = view(groups_.back().values);
      leaf.copy_(e->initial);
      leaf.set_requires_grad(true);
      // Autograd adds into a gradient that is there already, so it lands in the flat buffer.
      leaf.mutable_grad() = view(groups_.back().gradients);
      MSA_CHECK(leaves_.emplace(e->name, leaf).second);
      at += e->initial.numel();
    }
  }
  entries_.clear();
}

int64_t Parameters::count() const {
  int64_t n = 0;
  for (const Group& g : groups_) n += g.values.numel();
  return n;
}

void Parameters::zero_gradients() const {
  for (const Group& g : groups_) torch::Tensor(g.gradients).zero_();
}

torch::Tensor Parameters::gradient_norm() const {
  std::vector<torch::Tensor> squares;
  for (const Group& g : groups_) squares.push_back(g.gradients.square().sum());
  return torch::stack(squares).sum().sqrt();
}

}  // namespace msa::train
