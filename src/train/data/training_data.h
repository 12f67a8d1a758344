// Everything that a recipe's [data] names, loaded and tokenised.
#pragma once
#include <cstdint>
#include <optional>
#include <vector>

#include "train/data/dataset.h"
#include "train/data/held_out.h"
#include "train/data/lexical_teacher.h"
#include "train/data/recipe.h"
#include "train/data/teacher.h"
#include "train/data/teacher_vectors.h"

namespace msa::train {

/// One [[data.sets]] of the recipe.
struct TrainingSet {
  SetRecipe recipe;
  int32_t dataset = 0;  // index; entries of one folder share it
  QuestionSplit split;
  std::vector<uint8_t> is_train;  // [questions of the dataset] 1: in split.train
  ScoreTable hard_negatives;
  ScoreTable teacher;
};

struct TrainingData {
  std::vector<Dataset> datasets;
  std::vector<TeacherVectors> vectors;    // [datasets], empty where no set names any; all of one model
  std::optional<LexicalTeacher> lexical;  // where a set asks for it; over the documents that have vectors
  std::vector<TrainingSet> sets;
  int32_t corpus = -1;  // index into datasets, or -1
};

/// Throws Error naming file or field, so that a long run cannot fail over its data later.
TrainingData load_training_data(const DataRecipe& recipe, const Tokenizer& tokenizer, ThreadPool& pool);

}  // namespace msa::train
