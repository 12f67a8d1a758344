#include "train/data/teacher_vectors.h"

#include <cmath>
#include <numeric>

#include "core/dtype.h"
#include "core/error.h"

namespace msa::train {
namespace {

constexpr const char* kFix = "make the file anew from this very set: scripts/train/dense_teacher.py";

Tensor matrix(const SafetensorsFile& file, const char* name, int64_t rows) {
  const Tensor t = file.get(name);
  if (t.dtype != DType::kF16 || t.rank != 2) {
    throw Error("tensor '" + std::string(name) + "' is no float16 matrix", file.path(), kFix);
  }
  if (t.rows() != rows) {
    throw Error("tensor '" + std::string(name) + "' has " + std::to_string(t.rows()) + " rows, the set " +
                    std::to_string(rows) + " " + name,
                file.path(), kFix);
  }
  for (int64_t i = 0; i < rows; ++i) {
    for (int64_t j = 0; j < t.dim(1); ++j) {
      if (std::isfinite(half_to_float(t.row<uint16_t>(i)[j]))) continue;
      throw Error("row " + std::to_string(i) + " of tensor '" + std::string(name) + "' is not finite", file.path(),
                  kFix);
    }
  }
  return t;
}

}  // namespace

TeacherVectors TeacherVectors::load(const std::string& path, const Dataset& dataset) {
  TeacherVectors v;
  v.files_.push_back(SafetensorsFile::open(path));
  const SafetensorsFile& file = v.files_.front();
  v.documents_ = matrix(file, "documents", dataset.documents.size());
  v.questions_ = matrix(file, "questions", static_cast<int64_t>(dataset.questions.size()));
  v.width_ = v.documents_.dim(1);
  if (v.width_ == 0 || v.questions_.dim(1) != v.width_) {
    throw Error(
        "documents of " + std::to_string(v.width_) + " elements, questions of " + std::to_string(v.questions_.dim(1)),
        path, kFix);
  }
  const auto model = file.metadata().find("model");
  if (model != file.metadata().end()) v.model_ = model->second;
  return v;
}

void TeacherVectors::read(const msa::Tensor& rows, int32_t index, std::span<float> out) {
  const auto* row = rows.row<uint16_t>(index);
  for (size_t i = 0; i < out.size(); ++i) out[i] = half_to_float(row[i]);
}

PoolVectors::PoolVectors(int64_t count, int64_t width)
    : width_(width), rows_(static_cast<size_t>(count * width)), has_(static_cast<size_t>(count)) {}

std::span<float> PoolVectors::set(int64_t row) {
  has_[static_cast<size_t>(row)] = 1;
  return std::span(rows_).subspan(static_cast<size_t>(row * width_), static_cast<size_t>(width_));
}

float PoolVectors::score(int64_t row, std::span<const float> question) const {
  const float* own = rows_.data() + row * width_;
  // Eight sums side by side, which the compiler may keep in one register.
  float sums[8] = {};
  const int64_t even = width_ / 8 * 8;
  for (int64_t i = 0; i < even; i += 8) {
    for (int64_t j = 0; j < 8; ++j) sums[j] += own[i + j] * question[static_cast<size_t>(i + j)];
  }
  float rest = 0;
  for (int64_t i = even; i < width_; ++i) rest += own[i] * question[static_cast<size_t>(i)];
  return std::accumulate(sums, sums + 8, rest);
}

}  // namespace msa::train
