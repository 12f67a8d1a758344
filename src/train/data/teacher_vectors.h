// A dense retriever as the teacher: its vectors of a set's documents and questions.
#pragma once
#include <cstdint>
#include <span>
#include <string>
#include <vector>

#include "io/safetensors.h"
#include "train/data/dataset.h"

namespace msa::train {

/// The teacher's score of a document is the inner product of its vector with the question's, so every document of a
/// batch has one, where a file of scores names a few. `scripts/train/dense_teacher.py` writes the file.
class TeacherVectors {
 public:
  TeacherVectors() = default;
  /// Safetensors: "documents" F16 [documents, width], "questions" F16 [questions, width], rows in the order of the
  /// set's files; metadata "model": whose vectors they are. Throws Error where they do not belong to the set.
  static TeacherVectors load(const std::string& path, const Dataset& dataset);

  bool empty() const { return files_.empty(); }
  int64_t width() const { return width_; }
  const std::string& model() const { return model_; }

  /// out [width]
  void document(int32_t index, std::span<float> out) const { read(documents_, index, out); }
  void question(int32_t index, std::span<float> out) const { read(questions_, index, out); }

 private:
  static void read(const msa::Tensor& rows, int32_t index, std::span<float> out);

  std::vector<SafetensorsFile> files_;  // one, or none
  msa::Tensor documents_, questions_;   // F16, views of the file; the trainer also knows torch::Tensor
  int64_t width_ = 0;
  std::string model_;
};

/// What one teacher says of one batch: vectors of the pool's documents, to be multiplied with a question's.
class PoolVectors {
 public:
  /// Of `count` documents; rows that are never set have no score.
  PoolVectors(int64_t count, int64_t width);

  std::span<float> set(int64_t row);
  bool has(int64_t row) const { return has_[static_cast<size_t>(row)] != 0; }
  float score(int64_t row, std::span<const float> question) const;

 private:
  int64_t width_;
  std::vector<float> rows_;  // [count, width]
  std::vector<uint8_t> has_;
};

}  // namespace msa::train
