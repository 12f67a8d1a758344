// Questions set aside for measuring: they never reach a batch. Their documents stay, as in any memory.
#pragma once
#include <cstdint>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "train/data/dataset.h"

namespace msa::train {

/// Decided by the id alone: the same in every run, whatever else the recipe says; a larger share keeps the smaller one.
bool is_held_out(std::string_view question_id, double share);

struct QuestionSplit {
  std::vector<int32_t> train;     // ascending
  std::vector<int32_t> held_out;  // ascending
};

/// The questions with a gold document, of one of `types` (empty: any).
QuestionSplit split_questions(const Dataset& dataset, std::span<const std::string> types, double held_out_share);

}  // namespace msa::train
