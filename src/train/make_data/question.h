// A question made from documents.
#pragma once
#include <array>
#include <cstdint>
#include <string>
#include <string_view>
#include <vector>

namespace msa::train {

enum class QuestionKind : uint8_t { kInverseCloze, kFillIn, kTitle, kLink, kBridge };
constexpr size_t kQuestionKinds = 5;
constexpr std::array<const char*, kQuestionKinds> kQuestionKindNames = {"inverse_cloze", "fill_in", "title", "link",
                                                                        "bridge"};

struct Question {
  QuestionKind kind = QuestionKind::kInverseCloze;
  std::string text;
  std::vector<std::string> answers;  // none for inverse cloze
  std::vector<int32_t> gold;         // documents; of a bridge in the order of its hops
  std::string_view sentence;         // of inverse cloze: the sentence in the document
};

}  // namespace msa::train
