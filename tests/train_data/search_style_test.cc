#include "train/data/search_style.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <iterator>
#include <set>
#include <sstream>
#include <vector>

namespace msa::train {
namespace {

std::vector<std::string> words_of(const std::string& text) {
  std::istringstream in(text);
  return {std::istream_iterator<std::string>(in), {}};
}

TEST(SearchStyle, LowerCaseWithoutClosingMark) {
  RandomStream random(1, 0);
  EXPECT_EQ(search_style("Who  was Émile Zola? ", random).find_first_of("ABCDEFGHIJKLMNOPQRSTUVWXYZ?"),
            std::string::npos);
  EXPECT_EQ(search_style("When ended it?", random), "when ended it");
  EXPECT_EQ(search_style("???", random), "???");
}

TEST(SearchStyle, AllWordsAreKept) {
  EXPECT_EQ(all_words_in_search_style("Who  wrote Nana in 1880, and where? "), "who wrote nana in 1880, and where");
  EXPECT_EQ(all_words_in_search_style("?"), "?");
}

TEST(SearchStyle, KeepsOrderAndEnoughWords) {
  const std::string question = "a b c d e f g h i j k l m n o p q r s t";
  std::set<std::string> seen;
  int64_t whole = 0;
  for (uint64_t seed = 0; seed < 400; ++seed) {
    RandomStream random(seed, 0);
    const std::string text = search_style(question, random);
    const std::vector<std::string> words = words_of(text);
    EXPECT_TRUE(words.size() == 20 || (words.size() >= 3 && words.size() <= 14)) << text;
    EXPECT_TRUE(std::is_sorted(words.begin(), words.end())) << text;
    whole += text == question;
    seen.insert(text);
  }
  EXPECT_NEAR(static_cast<double>(whole), 200, 50);
  EXPECT_GT(seen.size(), 150u);
}

TEST(SearchStyle, SameSeedSameText) {
  RandomStream a(7, 3), b(7, 3);
  EXPECT_EQ(search_style("Which river flows through the old town of Bern?", a),
            search_style("Which river flows through the old town of Bern?", b));
}

}  // namespace
}  // namespace msa::train
