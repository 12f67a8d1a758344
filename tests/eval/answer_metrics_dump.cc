// Reads {"prediction", "answers"} lines from stdin, writes {"normalised", "exact_match", "f1"} lines: compared with the
// official script's by compare_answer_metrics.py.
#include <iostream>
#include <nlohmann/json.hpp>

#include "eval/answer_metrics.h"

int main() {
  std::string line;
  while (std::getline(std::cin, line)) {
    const auto object = nlohmann::json::parse(line);
    const auto prediction = object.at("prediction").get<std::string>();
    const auto answers = object.at("answers").get<std::vector<std::string>>();
    const msa::eval::AnswerScores scores = msa::eval::score_answer(prediction, answers);
    const nlohmann::json out = {{"normalised", msa::eval::normalise_answer(prediction)},
                                {"exact_match", scores.exact_match},
                                {"f1", scores.f1}};
    std::cout << out.dump() << '\n';
  }
}
