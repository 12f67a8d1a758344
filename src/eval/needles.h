// Needles in a haystack, to the definitions published with RULER (arXiv 2404.06654): sentences of a key and a value
// hidden in a text, and a question for the values of one or several keys.
#pragma once
#include <cstdint>
#include <functional>
#include <random>
#include <string>
#include <string_view>
#include <vector>

namespace msa::eval {

enum class HaystackKind {
  kNoise,   // one paragraph, repeated
  kEssay,   // prose
  kNeedle,  // other needles
};
enum class NeedleWord { kWords, kNumber, kUuid };

struct NeedleTask {
  const char* name;
  HaystackKind haystack;
  NeedleWord key;
  NeedleWord value;
  int keys;     // hidden
  int values;   // of each key
  int queries;  // keys asked for

  int needles() const { return keys * values; }
};

/// The eight tasks of RULER's niah family.
const std::vector<NeedleTask>& needle_tasks();
/// Throws Error for an unknown name.
const NeedleTask& needle_task(std::string_view name);

struct Needle {
  std::string sentence;
  int depth = 0;        // percent of the haystack's sentences that stand before it
  bool wanted = false;  // its key is asked for
};

struct NeedleSample {
  std::vector<Needle> needles;  // in order of depth
  std::string question;
  std::vector<std::string> answers;  // values of the keys asked for
};

/// The 40 depths of RULER: 0 to 100 in equal steps, rounded.
std::vector<int> needle_depths();

/// A sample whose needles lie at `depths` [task.needles()]. `is_taken` says which keys the haystack has already.
/// Throws Error when no key is free.
NeedleSample draw_needles(const NeedleTask& task, std::vector<int> depths,
                          const std::function<bool(const std::string& key)>& is_taken, std::mt19937_64& random);

struct KeyedSentence {
  std::string key, sentence;
};
/// A sentence of a haystack of needles.
KeyedSentence draw_needle_sentence(const NeedleTask& task, std::mt19937_64& random);

/// Sentences of prose: they end at . ! ? before a blank; runs of white space become one blank.
std::vector<std::string> split_sentences(std::string_view prose);

/// RULER's string_match_all: the share of the answers that stand in the prediction, upper and lower case alike.
double match_all(std::string_view prediction, const std::vector<std::string>& answers);

inline constexpr std::string_view kNoiseParagraph =
    "The grass is green. The sky is blue. The sun is yellow. Here we go. There and back again.";

}  // namespace msa::eval
