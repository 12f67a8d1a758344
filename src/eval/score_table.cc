#include "eval/score_table.h"

#include <algorithm>
#include <cmath>
#include <numeric>

#include "core/error.h"

namespace msa::eval {
namespace {

double round4(double x) { return std::round(x * 1e4) / 1e4; }

/// The middle 95 % of the values, which are reordered.
Estimate percentile_interval(double value, std::vector<double>& samples) {
  std::sort(samples.begin(), samples.end());
  const auto at = [&](double share) {
    return samples[static_cast<size_t>(std::lround(share * static_cast<double>(samples.size() - 1)))];
  };
  return {value, at(0.025), at(0.975)};
}

/// Means of the columns over rows drawn with replacement, one sample after another.
class Resampler {
 public:
  Resampler(std::span<const double> values, size_t n_columns, const Bootstrap& bootstrap)
      : values_(values), n_columns_(n_columns), n_rows_(values.size() / n_columns), random_(bootstrap.seed) {}

  std::vector<double> next() {
    std::vector<double> sums(n_columns_, 0.0);
    for (size_t i = 0; i < n_rows_; ++i) {
      const double* const row = values_.data() + draw_below(random_, n_rows_) * n_columns_;
      for (size_t c = 0; c < n_columns_; ++c) sums[c] += row[c];
    }
    for (double& s : sums) s /= static_cast<double>(n_rows_);
    return sums;
  }

 private:
  std::span<const double> values_;  // [rows, columns]
  size_t n_columns_, n_rows_;
  std::mt19937_64 random_;
};

double mean_of(std::span<const double> values) {
  return std::accumulate(values.begin(), values.end(), 0.0) / static_cast<double>(values.size());
}

}  // namespace

Json to_json(const Estimate& estimate) {
  return {{"value", round4(estimate.value)}, {"interval", {round4(estimate.low), round4(estimate.high)}}};
}

void ScoreTable::add(std::span<const double> row) {
  MSA_CHECK(row.size() == columns_.size());
  values_.insert(values_.end(), row.begin(), row.end());
}

std::span<const double> ScoreTable::row(size_t index) const {
  return std::span(values_).subspan(index * columns_.size(), columns_.size());
}

std::vector<double> ScoreTable::column(std::string_view name) const {
  const auto found = std::find(columns_.begin(), columns_.end(), name);
  MSA_CHECK(found != columns_.end());
  std::vector<double> out;
  for (size_t i = 0; i < rows(); ++i) out.push_back(row(i)[static_cast<size_t>(found - columns_.begin())]);
  return out;
}

std::vector<Estimate> ScoreTable::means(const Bootstrap& bootstrap) const {
  if (rows() == 0) return std::vector<Estimate>(columns_.size());
  Resampler resampler(values_, columns_.size(), bootstrap);
  std::vector<std::vector<double>> samples(columns_.size());
  for (int i = 0; i < bootstrap.resamples; ++i) {
    const std::vector<double> means = resampler.next();
    for (size_t c = 0; c < means.size(); ++c) samples[c].push_back(means[c]);
  }
  std::vector<Estimate> out;
  for (size_t c = 0; c < columns_.size(); ++c) {
    out.push_back(percentile_interval(mean_of(column(columns_[c])), samples[c]));
  }
  return out;
}

Json ScoreTable::summary(const Bootstrap& bootstrap) const {
  Json out = Json::object();
  const std::vector<Estimate> estimates = means(bootstrap);
  for (size_t c = 0; c < columns_.size(); ++c) out[columns_[c]] = to_json(estimates[c]);
  return out;
}

Estimate ratio_of_means(std::span<const double> a, std::span<const double> b, const Bootstrap& bootstrap) {
  MSA_CHECK(a.size() == b.size());
  if (a.empty()) return {};
  std::vector<double> pairs;  // [questions, 2]
  for (size_t i = 0; i < a.size(); ++i) pairs.insert(pairs.end(), {a[i], b[i]});
  const auto ratio = [](double above, double below) { return below == 0 ? 0 : above / below; };
  Resampler resampler(pairs, 2, bootstrap);
  std::vector<double> samples;
  for (int i = 0; i < bootstrap.resamples; ++i) {
    const std::vector<double> means = resampler.next();
    samples.push_back(ratio(means[0], means[1]));
  }
  return percentile_interval(ratio(mean_of(a), mean_of(b)), samples);
}

uint64_t draw_below(std::mt19937_64& random, uint64_t n) {
  return random() % n;  // the bias, n / 2^64, is of no concern here
}

std::vector<size_t> draw_indices(size_t n, int64_t count, uint64_t seed) {
  std::vector<size_t> indices(n);
  std::iota(indices.begin(), indices.end(), size_t{0});
  if (count < 0 || static_cast<size_t>(count) >= n) return indices;
  std::mt19937_64 random(seed);
  for (size_t i = 0; i < static_cast<size_t>(count); ++i) std::swap(indices[i], indices[i + draw_below(random, n - i)]);
  indices.resize(static_cast<size_t>(count));
  std::sort(indices.begin(), indices.end());
  return indices;
}

}  // namespace msa::eval
