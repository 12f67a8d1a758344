#include "train/routing_scores.h"

#include <algorithm>

namespace msa::train {
namespace {

using torch::Tensor;
using torch::autograd::AutogradContext;
using torch::autograd::variable_list;

// Elements of the largest intermediate, [samples of a block, routed tokens, documents].
constexpr int64_t kBlockElements = int64_t{1} << 26;

// Rows of the matrix of gradients begin at multiples of 16 bytes.
constexpr int64_t kAligned = 8;

struct Maxima {
  Tensor best, late;  // float32 [samples, documents]
  Tensor rows;        // int64 [samples, documents] the token of `best`; R where a sample has none
  Tensor chunks;      // uint8 or int32 [R, documents] the best chunk of each token, counted within the document
};

/// For rows [first, first + rows) of S = queries · keysᵀ: per document the maximum over its chunks, and that chunk.
std::pair<Tensor, Tensor> best_chunks(const Tensor& queries, const Tensor& keys, const RowOwners& documents) {
  const int64_t longest = documents.padded.size(1);
  const Tensor products = torch::matmul(queries, keys.t());                  // [rows, C]
  const Tensor padded = torch::constant_pad_nd(products, {0, 1}, kNoScore);  // column C: absent
  const auto [values, at] =
      padded.index_select(1, documents.padded.flatten()).view({queries.size(0), documents.size(), longest}).max(2);
  return {values.to(torch::kFloat), at.to(longest <= 256 ? torch::kByte : torch::kInt)};
}

Maxima find_maxima(const Tensor& queries, const RowOwners& samples, const Tensor& keys, const RowOwners& documents) {
  const int64_t n = samples.size(), longest = samples.padded.size(1), none = queries.size(0);
  const int64_t block = std::max<int64_t>(1, kBlockElements / std::max<int64_t>(1, longest * documents.size()));
  std::vector<Tensor> best, late, rows, chunks;
  for (int64_t begin = 0; begin < n; begin += block) {
    const int64_t end = std::min(begin + block, n);
    const int64_t row = samples.starts[static_cast<size_t>(begin)], row_end = samples.starts[static_cast<size_t>(end)];
    const int64_t count = row_end - row;
    auto [scores, at] = best_chunks(queries.slice(0, row, row_end), keys, documents);  // [count, D]
    const Tensor owner = torch::arange(begin, end, samples.owner.options()).unsqueeze(1);
    const Tensor shares = (samples.owner.slice(0, row, row_end) == owner) * samples.share.slice(0, row, row_end);
    late.push_back(torch::matmul(shares, scores));
    // Absent rows point to a last row that nobody scores in.
    const Tensor index = (samples.padded.slice(0, begin, end) - row).clamp_max(count);
    scores = torch::constant_pad_nd(scores, {0, 0, 0, 1}, kNoScore);
    const auto [values, token] =
        scores.index_select(0, index.flatten()).view({end - begin, longest, documents.size()}).max(1);
    const Tensor best_row = index.gather(1, token);  // [samples, D], relative to `row`
    best.push_back(values);
    rows.push_back((best_row + row).masked_fill(best_row == count, none));
    chunks.push_back(at);
  }
  return {torch::cat(best), torch::cat(late), torch::cat(rows), torch::cat(chunks)};
}

class RoutingScores : public torch::autograd::Function<RoutingScores> {
 public:
  static variable_list forward(AutogradContext* context, const Tensor& queries, const Tensor& keys,
                               const RowOwners& samples, const RowOwners& documents) {
    const Maxima m = find_maxima(queries, samples, keys, documents);
    // The first chunk of each document, C where it has none.
    const Tensor first = documents.padded.select(1, 0);
    context->save_for_backward({queries, keys, m.rows, m.chunks, first, samples.owner, samples.share});
    context->set_materialize_grads(false);
    return {m.best, m.late};
  }

  static variable_list backward(AutogradContext* context, variable_list gradients) {
    const variable_list saved = context->get_saved_variables();
    const Tensor &queries = saved[0], &keys = saved[1], &rows = saved[2], &chunks = saved[3];
    const Tensor &best = gradients[0], &late = gradients[1];
    const int64_t R = queries.size(0), C = keys.size(0), D = chunks.size(1);
    // Of each token's best chunk of each document; row R stands for samples without tokens.
    Tensor by_token = torch::zeros({R + 1, D}, saved[6].options());
    if (late.defined()) by_token.slice(0, 0, R).copy_(late.index_select(0, saved[5]).mul_(saved[6].unsqueeze(1)));
    if (best.defined()) by_token.scatter_(0, rows, by_token.gather(0, rows) + best);
    by_token = by_token.slice(0, 0, R);
    // A token meets each chunk under one document only, so nothing is added here. Documents without chunks fall on
    // column C.
    const int64_t width = (C + kAligned) / kAligned * kAligned;
    const Tensor products = torch::zeros({R, width}, queries.options())
                                .scatter_(1, chunks.to(torch::kLong) + saved[4], by_token.to(queries.dtype()))
                                .slice(1, 0, C);  // [R, C]
    return {torch::matmul(products, keys), torch::matmul(products.t(), queries), Tensor(), Tensor()};
  }
};

}  // namespace

RowOwners RowOwners::from(std::vector<int64_t> starts, torch::Device device) {
  const int64_t n = static_cast<int64_t>(starts.size()) - 1, absent = starts.back();
  int64_t longest = 1;
  for (int64_t i = 0; i < n; ++i) longest = std::max(longest, starts[size_t(i) + 1] - starts[size_t(i)]);
  Tensor padded = torch::full({n, longest}, absent, torch::kLong);
  Tensor owner = torch::empty({absent}, torch::kLong), share = torch::empty({absent}, torch::kFloat);
  auto rows = padded.accessor<int64_t, 2>();
  auto owners = owner.accessor<int64_t, 1>();
  auto shares = share.accessor<float, 1>();
  for (int64_t i = 0; i < n; ++i) {
    const int64_t begin = starts[size_t(i)], end = starts[size_t(i) + 1];
    for (int64_t row = begin; row < end; ++row) {
      rows[i][row - begin] = row;
      owners[row] = i;
      shares[row] = 1.0f / static_cast<float>(end - begin);
    }
  }
  const auto moved = [&](const Tensor& t) { return t.to(device, /*non_blocking=*/true); };
  return {std::move(starts), moved(padded), moved(owner), moved(share)};
}

DocumentScores routing_scores(const Tensor& queries, const RowOwners& samples, const Tensor& keys,
                              const RowOwners& documents) {
  const variable_list both = RoutingScores::apply(queries, keys, samples, documents);
  return {both[0], both[1]};
}

}  // namespace msa::train
