#include "train/data/held_out.h"

#include <algorithm>

#include "io/checksum.h"

namespace msa::train {

bool is_held_out(std::string_view question_id, double share) {
  const uint64_t hash = xxh3_64(question_id.data(), question_id.size());
  return static_cast<double>(hash >> 11) * 0x1.0p-53 < share;
}

QuestionSplit split_questions(const Dataset& dataset, std::span<const std::string> types, double held_out_share) {
  QuestionSplit split;
  for (size_t q = 0; q < dataset.questions.size(); ++q) {
    const BeirQuestion& question = dataset.questions[q];
    if (question.gold.empty()) continue;
    if (!types.empty() && std::find(types.begin(), types.end(), question.type) == types.end()) continue;
    (is_held_out(question.id, held_out_share) ? split.held_out : split.train).push_back(static_cast<int32_t>(q));
  }
  return split;
}

}  // namespace msa::train
