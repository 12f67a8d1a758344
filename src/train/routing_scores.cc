#include "train/routing_scores.h"

#include <algorithm>

namespace msa::train {
namespace {

using torch::Tensor;
using torch::autograd::AutogradContext;
using torch::autograd::variable_list;

// Elements of the largest intermediate, [samples of a block, routed tokens, documents].
constexpr int64_t kBlockElements = int64_t{1} << 26;

struct Best {
  Tensor values;    // float32 [samples, documents]
  Tensor elements;  // int64 [samples, documents]: row · C + column of the maximum in [R, C]
};

/// For rows [first, first + rows) of S = queries · keysᵀ: per document the maximum over its chunks, and that chunk.
std::pair<Tensor, Tensor> best_chunks(const Tensor& queries, const Tensor& keys, const RowOwners& documents) {
  const Tensor products = torch::matmul(queries, keys.t());                  // [rows, C]
  const Tensor padded = torch::constant_pad_nd(products, {0, 1}, kNoScore);  // column C: absent
  const Tensor by_document = padded.index_select(1, documents.padded.flatten())
                                 .view({queries.size(0), documents.size(), documents.padded.size(1)});
  auto [values, at] = by_document.max(2);
  const Tensor chunks = documents.padded.unsqueeze(0).expand(by_document.sizes()).gather(2, at.unsqueeze(2)).squeeze(2);
  return {values.to(torch::kFloat), chunks};
}

Best best_pairs(const Tensor& queries, const RowOwners& samples, const Tensor& keys, const RowOwners& documents) {
  const int64_t columns = keys.size(0), n = samples.size(), longest = samples.padded.size(1);
  const int64_t block = std::max<int64_t>(1, kBlockElements / std::max<int64_t>(1, longest * documents.size()));
  std::vector<Tensor> values, elements;
  for (int64_t begin = 0; begin < n; begin += block) {
    const int64_t end = std::min(begin + block, n);
    const int64_t row = samples.starts[static_cast<size_t>(begin)], row_end = samples.starts[static_cast<size_t>(end)];
    auto [scores, chunks] = best_chunks(queries.slice(0, row, row_end), keys, documents);  // [rows, D]
    // Absent rows point to a last row that nobody scores in.
    const Tensor index = (samples.padded.slice(0, begin, end) - row).clamp_max(row_end - row);
    scores = torch::constant_pad_nd(scores, {0, 0, 0, 1}, kNoScore);
    chunks = torch::constant_pad_nd(chunks, {0, 0, 0, 1}, 0);
    const Tensor by_sample = scores.index_select(0, index.flatten()).view({end - begin, longest, documents.size()});
    const auto [best, token] = by_sample.max(1);           // [samples, D]
    const Tensor best_row = index.gather(1, token);        // [samples, D], relative to `row`
    const Tensor best_chunk = chunks.gather(0, best_row);  // [samples, D]
    values.push_back(best);
    elements.push_back((best_row + row) * columns + best_chunk);
  }
  return {torch::cat(values), torch::cat(elements)};
}

class RoutingScores : public torch::autograd::Function<RoutingScores> {
 public:
  static Tensor forward(AutogradContext* context, const Tensor& queries, const Tensor& keys, const RowOwners& samples,
                        const RowOwners& documents) {
    const Best best = best_pairs(queries, samples, keys, documents);
    context->save_for_backward({queries, keys, best.elements});
    return best.values;
  }

  static variable_list backward(AutogradContext* context, variable_list gradients) {
    const variable_list saved = context->get_saved_variables();
    const Tensor& queries = saved[0];
    const Tensor& keys = saved[1];
    // Scores of pairs that do not exist point outside, or to an element of zero gradient that may be shared: drop both.
    const Tensor gradient = gradients[0].flatten();
    const Tensor elements = saved[2].flatten();
    const int64_t outside = queries.size(0) * keys.size(0);
    const Tensor target = elements.masked_fill(gradient == 0, outside).clamp_max(outside);
    const Tensor flat =
        torch::zeros({outside + 1}, queries.options()).scatter_(0, target, gradient.to(queries.dtype()));
    const Tensor products = flat.slice(0, 0, outside).view({queries.size(0), keys.size(0)});  // [R, C]
    return {torch::matmul(products, keys), torch::matmul(products.t(), queries), Tensor(), Tensor()};
  }
};

}  // namespace

RowOwners RowOwners::from(std::vector<int64_t> starts, torch::Device device) {
  const int64_t n = static_cast<int64_t>(starts.size()) - 1, absent = starts.back();
  int64_t longest = 1;
  for (int64_t i = 0; i < n; ++i) longest = std::max(longest, starts[size_t(i) + 1] - starts[size_t(i)]);
  Tensor padded = torch::full({n, longest}, absent, torch::kLong);
  auto rows = padded.accessor<int64_t, 2>();
  for (int64_t i = 0; i < n; ++i) {
    for (int64_t row = starts[size_t(i)]; row < starts[size_t(i) + 1]; ++row) rows[i][row - starts[size_t(i)]] = row;
  }
  return {std::move(starts), padded.to(device, /*non_blocking=*/true)};
}

Tensor routing_scores(const Tensor& queries, const RowOwners& samples, const Tensor& keys, const RowOwners& documents) {
  return RoutingScores::apply(queries, keys, samples, documents);
}

}  // namespace msa::train
