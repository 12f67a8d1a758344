#include "eval/distractors.h"

#include <gtest/gtest.h>

#include <fstream>
#include <set>
#include <sstream>

#include "../engine/tiny_model.h"
#include "core/error.h"

namespace msa::eval {
namespace {

const std::string kGold =
    "The old mill on the northern bank of the river was built by two brothers in a single summer.";

TEST(GoldFilter, FindsWhatRepeatsGold) {
  GoldFilter filter;
  filter.add_gold(kGold);
  EXPECT_TRUE(filter.repeats_gold(kGold));
  EXPECT_TRUE(filter.repeats_gold("Note: the OLD mill on the northern bank of the river was built by two brothers!"));
  EXPECT_FALSE(filter.repeats_gold("The old mill was torn down when nobody wanted its flour any more."));
  EXPECT_FALSE(filter.repeats_gold(""));
  EXPECT_FALSE(filter.repeats_gold("mill"));
  filter.add_gold("A mill.");
  EXPECT_TRUE(filter.repeats_gold("mill"));
}

TEST(TextSplicer, OfRealWordsAndLengths) {
  TextSplicer splicer(3), same(3), other(4);
  for (TextSplicer* s : {&splicer, &same, &other}) {
    s->learn("one two three two one four");
    s->learn("five two six one");
  }
  const std::set<std::string> words{"one", "two", "three", "four", "five", "six"};
  std::set<std::string> texts;
  bool differs = false;
  for (int i = 0; i < 50; ++i) {
    const std::string text = splicer.next();
    EXPECT_EQ(same.next(), text);
    differs = differs || other.next() != text;
    texts.insert(text);
    std::istringstream in(text);
    int n = 0;
    for (std::string word; in >> word; ++n) EXPECT_TRUE(words.contains(word)) << word;
    EXPECT_TRUE(n == 6 || n == 4);
  }
  EXPECT_GT(texts.size(), 20u);
  EXPECT_TRUE(differs);
}

TEST(FillStream, GoldThenSetThenOthersThenSynthetic) {
  const testing::TemporaryFolder folder;
  std::ofstream(folder.path() / "corpus.jsonl")
      << R"({"_id": "a", "text": "Geese fly south in the shape of a wedge every autumn."})"
      << "\n\n"
      << R"({"_id": "b", "title": "Mill", "text": ")" << kGold << "\"}\n";
  BeirSet set;
  set.documents = {{"d0", "", "Snow fell on the quiet harbour before dawn."}, {"d1", "", kGold}};
  const std::vector<int32_t> gold{1};
  FillStream stream(set, gold, {folder.path().string()}, 1);
  const std::vector<std::pair<std::string, Origin>> expected{{"d1", Origin::kGold},
                                                             {"d0", Origin::kSet},
                                                             {folder.path().filename().string() + "/a", Origin::kOther},
                                                             {"synthetic/1", Origin::kSynthetic},
                                                             {"synthetic/2", Origin::kSynthetic}};
  for (const auto& [id, origin] : expected) {
    const FillDocument document = stream.next();
    EXPECT_EQ(document.external_id, id);
    EXPECT_EQ(document.origin, origin);
    EXPECT_EQ(document.text.find("brothers"), origin == Origin::kGold ? kGold.find("brothers") : std::string::npos);
  }
  EXPECT_EQ(stream.left_out(), 1);
}

TEST(FillStream, NothingToMakeTextFrom) {
  BeirSet set;
  set.documents = {{"d1", "", kGold}};
  FillStream stream(set, std::vector<int32_t>{0}, {}, 1);
  stream.next();
  EXPECT_THROW(stream.next(), Error);
}

}  // namespace
}  // namespace msa::eval
