// Scores of many questions, their means and how far those can be trusted.
#pragma once
#include <cstdint>
#include <nlohmann/json.hpp>
#include <random>
#include <span>
#include <string>
#include <string_view>
#include <vector>

namespace msa::eval {

using Json = nlohmann::ordered_json;

/// A mean with its 95 % interval.
struct Estimate {
  double value = 0;
  double low = 0, high = 0;
};
Json to_json(const Estimate& estimate);  // {"value": 0.8, "interval": [0.7, 0.9]}, four decimals

/// Percentile bootstrap over questions. The same seed and number of questions draw the same samples, so figures of the
/// same questions are compared in pairs.
struct Bootstrap {
  uint64_t seed = 1;
  int resamples = 1000;
};

/// One row a question, one column a metric.
class ScoreTable {
 public:
  explicit ScoreTable(std::vector<std::string> columns) : columns_(std::move(columns)) {}

  void add(std::span<const double> row);  // [columns]
  size_t rows() const { return columns_.empty() ? 0 : values_.size() / columns_.size(); }
  const std::vector<std::string>& columns() const { return columns_; }
  std::span<const double> row(size_t index) const;
  std::vector<double> column(std::string_view name) const;  // the name must be there

  std::vector<Estimate> means(const Bootstrap& bootstrap) const;  // [columns]; zeros without rows
  Json summary(const Bootstrap& bootstrap) const;                 // {column: {"value", "interval"}, …}

 private:
  std::vector<std::string> columns_;
  std::vector<double> values_;  // [rows, columns]
};

/// mean(a) / mean(b) of the same questions, in the same order; 0 where mean(b) is 0.
Estimate ratio_of_means(std::span<const double> a, std::span<const double> b, const Bootstrap& bootstrap);

/// A number below n > 0, the same everywhere for the same generator state.
uint64_t draw_below(std::mt19937_64& random, uint64_t n);

/// `count` of the indices [0, n), ascending, each set of them equally likely; all of them when count < 0 or >= n.
std::vector<size_t> draw_indices(size_t n, int64_t count, uint64_t seed);

}  // namespace msa::eval
