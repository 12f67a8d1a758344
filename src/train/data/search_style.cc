#include "train/data/search_style.h"

#include <algorithm>
#include <cstdint>
#include <vector>

namespace msa::train {
namespace {

constexpr size_t kLeastWords = 3;
constexpr double kLeastDropped = 0.05, kMostDropped = 0.35;
constexpr int64_t kLeastRun = 8, kMostRun = 14;

std::vector<std::string> lower_case_words(std::string_view text) {
  std::vector<std::string> words(1);
  for (const char c : text) {
    if (c == ' ' || c == '\t' || c == '\n') {
      if (!words.back().empty()) words.emplace_back();
    } else {
      words.back() += c >= 'A' && c <= 'Z' ? static_cast<char>(c - 'A' + 'a') : c;
    }
  }
  if (words.back().empty()) words.pop_back();
  return words;
}

void drop_some(std::vector<std::string>& words, RandomStream& random) {
  const double share = kLeastDropped + (kMostDropped - kLeastDropped) * random.uniform();
  std::vector<std::string> kept;
  for (const std::string& word : words) {
    if (random.uniform() >= share) kept.push_back(word);
  }
  if (kept.size() >= kLeastWords) words = std::move(kept);
}

void keep_a_run(std::vector<std::string>& words, RandomStream& random) {
  const auto n = static_cast<int64_t>(words.size());
  if (n <= kMostRun) return;
  const int64_t length = kLeastRun + random.below(kMostRun - kLeastRun + 1);
  const int64_t begin = random.below(n - length + 1);
  words = {words.begin() + begin, words.begin() + begin + length};
}

std::vector<std::string> words_of(std::string_view question) {
  while (question.ends_with('?') || question.ends_with('.') || question.ends_with(' ')) question.remove_suffix(1);
  return lower_case_words(question);
}

std::string joined(const std::vector<std::string>& words) {
  std::string text;
  for (const std::string& word : words) text += (text.empty() ? "" : " ") + word;
  return text;
}

}  // namespace

std::string all_words_in_search_style(std::string_view question) {
  const std::vector<std::string> words = words_of(question);
  return words.empty() ? std::string(question) : joined(words);
}

std::string search_style(std::string_view question, RandomStream& random) {
  std::vector<std::string> words = words_of(question);
  if (words.empty()) return std::string(question);
  if (words.size() > kLeastWords && random.below(2) == 0) {
    drop_some(words, random);
    keep_a_run(words, random);
  }
  return joined(words);
}

}  // namespace msa::train
