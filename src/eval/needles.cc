#include "eval/needles.h"

#include <fmt/format.h>

#include <algorithm>
#include <array>
#include <cctype>
#include <cmath>
#include <set>

#include "core/error.h"
#include "eval/score_table.h"

namespace msa::eval {
namespace {

constexpr int kMaxTries = 100000;

// Our own lists in place of those RULER takes from a package: any plain words serve.
constexpr std::string_view kAdjectives =
    "able absent active adept agile airy alert ample ancient angry apt arctic ardent avid azure bald balmy barren "
    "basic "
    "bitter blank bleak blithe blunt bold brave breezy brief bright brisk broad bronze bumpy busy calm candid careful "
    "casual chief chilly civil classy clean clear clever close cloudy coarse cobalt cold comic cool copper coral "
    "cosmic "
    "cozy crisp cubic curly dainty damp daring dark dazed deep dense dim distant docile double downy dry dual dull "
    "dusty "
    "eager early earnest eastern easy elder empty equal even exact extra faint fair famous fancy fast fertile fiery "
    "fine "
    "firm first flat fleet fluffy fond formal frank free fresh frosty frugal full fuzzy gentle giant gifted glad "
    "gleaming "
    "glossy golden grand gray green grim handy happy hardy hasty hazy heavy hidden high hollow honest huge humble icy "
    "ideal idle inner ivory jagged jolly just keen kind large late lavish lazy lean level light little lively local "
    "lone "
    "long loud lovely loyal lucid lucky lunar major mellow merry mild minor misty modern modest muted naive narrow "
    "native "
    "neat new nimble noble northern novel oaken odd old olive open outer pale patient plain polite prime proud pure "
    "quick "
    "quiet rapid rare ready regal rich rigid ripe robust rocky rosy rough round royal rural rustic safe sandy sharp "
    "short "
    "shy silent silver simple sleek slim slow small smart smooth snowy soft solar solid sour spare spicy stark steady "
    "steep stern still stout strong subtle sunny sweet swift tall tame tart tender thick thin tidy tiny tough tranquil "
    "true urban vast velvet vivid warm wary western wide wild windy wise witty wooden young zesty";
constexpr std::string_view kNouns =
    "acorn alley amber anchor anvil apple apron arch arrow atlas attic autumn badge bakery balcony bamboo banjo barley "
    "barrel basin basket beacon beaver bell bench berry birch blanket blossom bonnet bottle boulder branch bridge "
    "broom "
    "bucket buffalo button cabin cactus camel candle canoe canyon cape captain caravan carpet castle cedar cellar "
    "chalk "
    "chapel cherry chest chimney cider circle citadel cliff clock clover cobbler coffee comet compass copper cottage "
    "cradle crane crater creek cricket crown crystal cushion cypress daisy dagger delta desert dolphin donkey dragon "
    "drum eagle easel echo elbow ember engine falcon feather fender ferry fiddle field finch flagon flame flask flute "
    "forest fossil fountain fox galaxy garden garnet gate geyser ginger glacier glove goblet granite grape guitar "
    "hammer "
    "harbor harp hatchet hawk hazel hedge helmet heron hill honey horizon hornet iris island ivy jacket jasmine jewel "
    "jungle kettle kiln kite ladder lagoon lake lamp lantern larch lark laurel lemon leopard lever library lilac linen "
    "lion lizard locket lotus lute magnet mango mantle maple marble market meadow melon mill mirror mole monk moon "
    "moss "
    "mountain needle nest nickel novel nutmeg oak oasis oboe ocean olive onion opal orbit orchard otter oyster paddle "
    "palace panther paper parrot path peach pearl pebble pepper piano pigeon pillar pine pirate planet plaza plum "
    "pocket "
    "pond poplar poppy prairie prism puzzle quarry quartz quill rabbit raft raven reef ribbon ridge river robin rocket "
    "rope rose saddle saffron sail salmon sandal satchel scarf school shell shield shovel signal silk slate sparrow "
    "spindle spruce squirrel stable statue stream sugar summit swan table tavern temple thicket thistle tiger timber "
    "torch tower trail trumpet tulip tunnel turtle valley vessel village vine violet wagon walnut water weaver whale "
    "wheat whistle willow window winter wolf wren yacht zebra";

std::vector<std::string_view> words_of(std::string_view list) {
  std::vector<std::string_view> words;
  for (size_t at = 0; at < list.size();) {
    const size_t end = std::min(list.find(' ', at), list.size());
    words.push_back(list.substr(at, end - at));
    at = end + 1;
  }
  return words;
}

std::string draw_uuid(std::mt19937_64& random) {
  uint64_t high = random(), low = random();
  high = (high & ~uint64_t{0xf000}) | 0x4000;                // version 4
  low = (low & ~(uint64_t{3} << 62)) | (uint64_t{1} << 63);  // variant 1
  const std::string digits = fmt::format("{:016x}{:016x}", high, low);
  return digits.substr(0, 8) + "-" + digits.substr(8, 4) + "-" + digits.substr(12, 4) + "-" + digits.substr(16, 4) +
         "-" + digits.substr(20);
}

std::string draw_word(NeedleWord kind, std::mt19937_64& random) {
  static const std::vector<std::string_view> adjectives = words_of(kAdjectives), nouns = words_of(kNouns);
  switch (kind) {
    case NeedleWord::kWords:
      return fmt::format("{}-{}", adjectives[draw_below(random, adjectives.size())],
                         nouns[draw_below(random, nouns.size())]);
    case NeedleWord::kNumber: return std::to_string(1000000 + draw_below(random, 9000000));
    case NeedleWord::kUuid: return draw_uuid(random);
  }
  MSA_CHECK(false);
}

const char* plural(NeedleWord kind) {
  return kind == NeedleWord::kWords ? "words" : kind == NeedleWord::kNumber ? "numbers" : "uuids";
}

std::string singular(NeedleWord kind) {
  const std::string name = plural(kind);
  return name.substr(0, name.size() - 1);
}

std::string needle_sentence(const NeedleTask& task, const std::string& key, const std::string& value) {
  return fmt::format("One of the special magic {} for {} is: {}.", plural(task.value), key, value);
}

std::string question_for(const NeedleTask& task, const std::vector<std::string>& keys) {
  std::string list = keys.front();
  for (size_t i = 1; i < keys.size(); ++i) list += (i + 1 < keys.size() ? ", " : ", and ") + keys[i];
  if (task.queries * task.values == 1) {
    return fmt::format("What is the special magic {} for {} mentioned in the provided text?", singular(task.value),
                       list);
  }
  return fmt::format("What are all the special magic {} for {} mentioned in the provided text?", plural(task.value),
                     list);
}

std::string lower(std::string_view text) {
  std::string out(text);
  for (char& c : out) c = static_cast<char>(std::tolower(static_cast<unsigned char>(c)));
  return out;
}

}  // namespace

const std::vector<NeedleTask>& needle_tasks() {
  using enum HaystackKind;
  using enum NeedleWord;
  static const std::vector<NeedleTask> tasks{
      {"single_1", kNoise, kWords, kNumber, 1, 1, 1},    {"single_2", kEssay, kWords, kNumber, 1, 1, 1},
      {"single_3", kEssay, kWords, kUuid, 1, 1, 1},      {"multikey_1", kEssay, kWords, kNumber, 4, 1, 1},
      {"multikey_2", kNeedle, kWords, kNumber, 1, 1, 1}, {"multikey_3", kNeedle, kUuid, kUuid, 1, 1, 1},
      {"multivalue", kEssay, kWords, kNumber, 1, 4, 1},  {"multiquery", kEssay, kWords, kNumber, 4, 1, 4}};
  return tasks;
}

const NeedleTask& needle_task(std::string_view name) {
  std::string names;
  for (const NeedleTask& task : needle_tasks()) {
    if (name == task.name) return task;
    names += (names.empty() ? "" : ", ") + std::string(task.name);
  }
  throw Error("'" + std::string(name) + "' is no task", "--tasks", "choose among " + names);
}

std::vector<int> needle_depths() {
  std::vector<int> depths;
  for (int i = 0; i < 40; ++i) depths.push_back(static_cast<int>(std::lround(i * 100.0 / 39)));
  return depths;
}

NeedleSample draw_needles(const NeedleTask& task, std::vector<int> depths,
                          const std::function<bool(const std::string& key)>& is_taken, std::mt19937_64& random) {
  MSA_CHECK(static_cast<int>(depths.size()) == task.needles());
  std::set<std::string> taken;  // keys and values are distinct, so that each question has one answer
  const auto draw_new = [&](NeedleWord kind) {
    for (int tries = 0; tries < kMaxTries; ++tries) {
      std::string word = draw_word(kind, random);
      if (!is_taken(word) && taken.insert(word).second) return word;
    }
    throw Error("the haystack holds every key there is", task.name, "choose a smaller haystack for this task");
  };
  NeedleSample sample;
  std::vector<std::string> asked;
  for (int k = 0; k < task.keys; ++k) {
    const std::string key = draw_new(task.key);
    const bool wanted = k < task.queries;
    if (wanted) asked.push_back(key);
    for (int v = 0; v < task.values; ++v) {
      const std::string value = draw_new(task.value);
      if (wanted) sample.answers.push_back(value);
      sample.needles.push_back({needle_sentence(task, key, value), 0, wanted});
    }
  }
  for (size_t i = sample.needles.size(); i > 1; --i)
    std::swap(sample.needles[i - 1], sample.needles[draw_below(random, i)]);
  std::sort(depths.begin(), depths.end());
  for (size_t i = 0; i < depths.size(); ++i) sample.needles[i].depth = depths[i];
  sample.question = question_for(task, asked);
  return sample;
}

KeyedSentence draw_needle_sentence(const NeedleTask& task, std::mt19937_64& random) {
  const std::string key = draw_word(task.key, random);
  return {key, needle_sentence(task, key, draw_word(task.value, random))};
}

std::vector<std::string> split_sentences(std::string_view prose) {
  std::vector<std::string> sentences;
  std::string sentence;
  const auto finish = [&] {
    if (!sentence.empty()) sentences.push_back(std::move(sentence));
    sentence.clear();
  };
  bool blank = false;
  for (const char c : prose) {
    if (c == ' ' || (c >= '\t' && c <= '\r')) {
      blank = true;
      continue;
    }
    if (blank && !sentence.empty()) {
      const char last = sentence.back();
      if (last == '.' || last == '!' || last == '?')
        finish();
      else
        sentence += ' ';
    }
    blank = false;
    sentence += c;
  }
  finish();
  return sentences;
}

double match_all(std::string_view prediction, const std::vector<std::string>& answers) {
  MSA_CHECK(!answers.empty());
  const std::string text = lower(prediction);
  const auto found = std::count_if(answers.begin(), answers.end(), [&](const std::string& answer) {
    return text.find(lower(answer)) != std::string::npos;
  });
  return static_cast<double>(found) / static_cast<double>(answers.size());
}

}  // namespace msa::eval
