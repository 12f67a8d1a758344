// How right an answer is: the definitions of SQuAD's official evaluation script (version 1.1).
#pragma once
#include <span>
#include <string>
#include <string_view>

namespace msa::eval {

/// Lower case, ASCII punctuation and the articles a, an, the taken out, words joined by single spaces. Broken UTF-8 is
/// replaced first.
std::string normalise_answer(std::string_view text);

struct AnswerScores {
  double exact_match = 0;     // 1: equal to one of the answers, both normalised
  double f1 = 0;              // of the words, each as often as it occurs; the best over the answers
  double answer_in_text = 0;  // 1: one of the answers stands in the text, whole words
};

AnswerScores score_answer(std::string_view prediction, std::span<const std::string> answers);

/// 1 when one of the answers stands in the text as whole words, both normalised.
double answer_in_text(std::string_view text, std::span<const std::string> answers);

}  // namespace msa::eval
