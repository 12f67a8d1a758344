#include "train/recompute.h"

#include <torch/csrc/autograd/function.h>
#include <torch/csrc/autograd/functions/utils.h>
#include <torch/csrc/autograd/saved_variable.h>

#include <algorithm>
#include <memory>
#include <utility>

namespace msa::train {
namespace {

using torch::Tensor;
using torch::autograd::SavedVariable;
using torch::autograd::variable_list;

bool differentiable(const Tensor& t) { return t.defined() && t.requires_grad(); }

/// A node of the graph by hand: torch::autograd::Function takes no lists of tensors.
struct RecomputedCall : torch::autograd::Node {
  TensorFunction function;
  std::vector<SavedVariable> inputs;
  Tensor offloaded;  // the first input in host memory; its device and whether it wants a gradient:
  torch::Device device = torch::kCPU;
  bool wants_gradient = false;

  /// Input i without its history, and whether its gradient is wanted.
  std::pair<Tensor, bool> input(size_t i) {
    if (i == 0 && offloaded.defined()) return {offloaded.to(device, /*non_blocking=*/true), wants_gradient};
    const Tensor saved = inputs[i].unpack();
    return {saved.defined() ? saved.detach() : Tensor(), differentiable(saved)};
  }

  variable_list apply(variable_list&& gradients) override {
    variable_list given, wanted;
    std::vector<size_t> wanted_at;
    for (size_t i = 0; i < inputs.size(); ++i) {
      const auto [value, is_wanted] = input(i);
      given.push_back(value);
      if (!is_wanted) continue;
      given.back().set_requires_grad(true);
      wanted.push_back(given.back());
      wanted_at.push_back(i);
    }
    variable_list outputs, output_gradients;
    {
      const torch::AutoGradMode enabled(true);
      const variable_list all = function(given);
      for (size_t i = 0; i < all.size(); ++i) {
        if (!differentiable(all[i]) || !gradients[i].defined()) continue;
        outputs.push_back(all[i]);
        output_gradients.push_back(gradients[i]);
      }
    }
    variable_list result(inputs.size());
    if (outputs.empty()) return result;
    const variable_list found = torch::autograd::grad(outputs, wanted, output_gradients, /*retain_graph=*/{},
                                                      /*create_graph=*/false, /*allow_unused=*/true);
    for (size_t i = 0; i < found.size(); ++i) result[wanted_at[i]] = found[i];
    return result;
  }

  void release_variables() override {
    inputs.clear();
    offloaded = Tensor();
  }
};

}  // namespace

std::vector<Tensor> recomputed(const TensorFunction& function, const std::vector<Tensor>& inputs, Recompute mode) {
  if (mode == Recompute::kNone || !torch::GradMode::is_enabled() ||
      std::none_of(inputs.begin(), inputs.end(), differentiable)) {
    return function(inputs);
  }
  const std::shared_ptr<RecomputedCall> call(new RecomputedCall, torch::autograd::deleteNode);
  call->function = function;
  torch::autograd::edge_list edges;
  for (const Tensor& input : inputs) {
    edges.push_back(differentiable(input) ? torch::autograd::impl::gradient_edge(input) : torch::autograd::Edge());
    const bool is_offloaded = mode == Recompute::kOffload && edges.size() == 1;
    call->inputs.emplace_back(is_offloaded ? Tensor() : input, /*is_output=*/false);
  }
  if (mode == Recompute::kOffload) {
    const Tensor& first = inputs.front();
    call->device = first.device();
    call->wants_gradient = first.requires_grad();
    call->offloaded = torch::empty(first.sizes(), first.options().device(torch::kCPU).pinned_memory(first.is_cuda()));
    const torch::NoGradGuard no_gradients;
    call->offloaded.copy_(first.detach(), /*non_blocking=*/true);
  }
  call->set_next_edges(std::move(edges));
  variable_list outputs;
  {
    const torch::NoGradGuard no_gradients;
    outputs = function(inputs);
    for (Tensor& out : outputs) out = out.is_view() ? out.clone() : out;  // a view would belong to another graph
  }
  for (Tensor& out : outputs) torch::autograd::set_history(out, call);
  return outputs;
}

}  // namespace msa::train
