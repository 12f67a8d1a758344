// BM25 beside a dense teacher: names and numbers, which a dense vector blurs, are what it is good at.
#pragma once
#include <cstdint>
#include <memory>
#include <span>
#include <string_view>
#include <utility>
#include <vector>

#include "tokenizer/tokenizer.h"
#include "train/data/bm25.h"
#include "train/data/dataset.h"
#include "train/data/teacher_vectors.h"

namespace msa::train {

/// One index over all documents with vectors, so that scores of documents of several sets compare. Const: threads share
/// it.
class LexicalTeacher {
 public:
  /// vectors [datasets]: empty ones leave their data set out.
  LexicalTeacher(const std::vector<Dataset>& datasets, const std::vector<TeacherVectors>& vectors,
                 const Tokenizer& tokenizer);

  /// The documents of one batch. Belongs to one thread; the teacher outlives it.
  class Pool {
   public:
    /// documents: (data set, document) of each, no two the same.
    Pool(const LexicalTeacher& teacher, std::span<const std::pair<int32_t, int32_t>> documents);

    /// out [documents]: BM25 of the question over the largest of them, so 0 … 1; all 0 where no word meets.
    void score(std::string_view question, std::span<float> out);

   private:
    const LexicalTeacher& teacher_;
    std::vector<int32_t> places_;  // [documents of the index] in the batch, -1: not there
    Bm25Scratch scratch_;
  };

 private:
  std::vector<int64_t> starts_;       // [datasets + 1] first document of each in the index
  std::unique_ptr<Bm25Index> index_;  // of the documents as the model reads them: cut, with or without titles
};

}  // namespace msa::train
