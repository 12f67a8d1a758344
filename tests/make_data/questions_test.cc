// Each kind of question on passages made by hand, over many seeds.
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <map>
#include <random>
#include <set>

#include "core/error.h"
#include "train/data/words.h"
#include "train/make_data/clause.h"
#include "train/make_data/linked_questions.h"
#include "train/make_data/text_questions.h"

namespace msa::train {
namespace {

using ::testing::AnyOf;
using ::testing::Contains;
using ::testing::ElementsAre;
using ::testing::HasSubstr;
using ::testing::IsEmpty;
using ::testing::Not;
using ::testing::Pair;
using ::testing::StartsWith;

constexpr int kSeeds = 200;

class QuestionsTest : public ::testing::Test {
 protected:
  /// Number of the new document.
  int32_t add(const std::string& title, const std::string& text) {
    documents_.push_back({"d" + std::to_string(documents_.size()), title, text});
    return static_cast<int32_t>(documents_.size()) - 1;
  }

  void finish() {
    catalogue_ = std::make_unique<Catalogue>(documents_, pool_);
    for (const BeirDocument& document : documents_) words_.push_back(spaced_words(document.full_text()));
  }

  Source source(int32_t i) const { return {*catalogue_, documents_[static_cast<size_t>(i)], i}; }
  Corpus corpus() const { return {documents_, words_, *catalogue_}; }

  /// Question → first answer, over many seeds. Every one must be fair and answered by its gold document.
  template <class Make>
  std::map<std::string, std::string> collect(const Make& make) {
    std::map<std::string, std::string> all;
    for (uint64_t seed = 0; seed < kSeeds; ++seed) {
      Random random(seed);
      std::vector<Question> questions;
      make(random, questions);
      for (const Question& question : questions) {
        EXPECT_TRUE(is_fair(question.text, question.answers)) << question.text;
        all[question.text] = question.answers.empty() ? "" : question.answers[0];
        last_[question.text] = question;
      }
    }
    return all;
  }

  ThreadPool pool_{1};
  std::vector<BeirDocument> documents_;
  std::vector<std::string> words_;
  std::unique_ptr<Catalogue> catalogue_;
  std::map<std::string, Question> last_;
};

TEST_F(QuestionsTest, FillInAsksForDatesNumbersPlacesAndNames) {
  add("Treasure", "Treasure is a Japanese video game developer. It was founded by others.");
  const int32_t i = add("Guardian Heroes",
                        "Guardian Heroes is a video game developed by Treasure and released in 1996. It was opened on "
                        "July 11, 1998, as part of a show. It won 14 prizes in Europe. It is located in Kuala Lumpur, "
                        "Malaysia. Others were seen in 1999.");
  finish();
  const auto all = collect([&](Random& random, auto& out) { make_fill_in(source(i), random, out); });
  EXPECT_THAT(all, Contains(Pair("Which Japanese video game developer was Guardian Heroes developed by?", "Treasure")));
  EXPECT_THAT(all, Contains(Pair("In which year was Guardian Heroes released?", "1996")));
  EXPECT_THAT(all, Contains(Pair("When was Guardian Heroes opened?", "July 11, 1998")));
  EXPECT_THAT(all, Contains(Pair("Guardian Heroes was opened on what date?", "July 11, 1998")));
  EXPECT_THAT(all, Contains(Pair("How many prizes did Guardian Heroes win in Europe?", "14")));
  EXPECT_THAT(all, Contains(Pair("Where is Guardian Heroes located?", "Kuala Lumpur, Malaysia")));
  EXPECT_THAT(all, Contains(Pair(StartsWith("Complete the sentence: "), "14")));
  for (const auto& [text, answer] : all) {
    EXPECT_THAT(documents_[1].text, HasSubstr(answer)) << text;
    EXPECT_NE(answer, "1999") << "of another subject: " << text;
  }
}

TEST_F(QuestionsTest, TitleAsksForKindDatesPlaceAndName) {
  const int32_t person = add("Manuel Barbosa",
                             "Manuel Barbosa (born 26 February 1951) is a Portuguese football manager. He played 14 "
                             "seasons in the Primeira Liga for Boavista.");
  const int32_t place = add("Antón", "Antón is a village in Coclé Province, Panama. It lies near the Gulf of Panama.");
  finish();
  const auto of_person = collect([&](Random& random, auto& out) { make_title(source(person), random, out); });
  EXPECT_THAT(of_person, Contains(Pair("Who is Manuel Barbosa?", "Portuguese football manager")));
  EXPECT_THAT(of_person, Contains(Pair("When was Manuel Barbosa born?", "26 February 1951")));
  EXPECT_THAT(of_person, Contains(Pair("Which Portuguese football manager played 14 seasons in the Primeira Liga for "
                                       "Boavista?",
                                       "Manuel Barbosa")));
  const auto of_place = collect([&](Random& random, auto& out) { make_title(source(place), random, out); });
  EXPECT_THAT(of_place, Contains(Pair("Where is Antón?", "Coclé Province, Panama")));
  EXPECT_THAT(of_place, Contains(Pair("What kind of village is Antón?", "village in Coclé Province, Panama")));
}

TEST_F(QuestionsTest, DocumentsOfOneTitleAreNotAskedForByIt) {
  const std::string text = "Twin is a town in Ohio, United States. It was founded in 1822 by two Brothers of Ohio.";
  const int32_t i = add("Twin", text);
  add("Twin", "Twin is a river in Idaho. It flows for many miles through the hills and valleys of Idaho.");
  finish();
  EXPECT_THAT(collect([&](Random& random, auto& out) { make_title(source(i), random, out); }), IsEmpty());
  EXPECT_THAT(collect([&](Random& random, auto& out) { make_fill_in(source(i), random, out); }), IsEmpty());
}

TEST_F(QuestionsTest, InverseClozeNamesItsSubject) {
  const int32_t i = add("Sport TV",
                        "Sport TV is a network of many channels. It was launched on 16 September 1998 by "
                        "Portugal Telecom. The channel shows Formula One, rugby and golf in Portugal. They "
                        "have seen 12 Cups and 14 Leagues of Europe so far.");
  finish();
  const auto all = collect([&](Random& random, auto& out) { make_inverse_cloze(source(i), random, out); });
  EXPECT_THAT(all, ElementsAre(Pair("Sport TV was launched on 16 September 1998 by Portugal Telecom.", ""),
                               Pair("The channel shows Formula One, rugby and golf in Portugal.", "")));
  for (const auto& [text, question] : last_) EXPECT_THAT(documents_[0].text, HasSubstr(std::string(question.sentence)));
}

constexpr const char* kGames =
    R"({"_id": "t1", "title": "Gaijinworks", "section_title": "Works -- Published", "header": ["Title", "Year", "Developer"],
        "rows": [[{"text": "Miami Law", "links": ["d0"]}, {"text": "2009", "links": []}, {"text": "Hudson Soft", "links": ["d1"]}],
                 [{"text": "Other", "links": ["d9"]}, {"text": "2010", "links": []}, {"text": "Hudson Soft", "links": ["d1"]}]]})";

class LinkedTest : public QuestionsTest {
 protected:
  LinkedTest() {
    add("Miami Law", "Miami Law is a video game developed by Hudson Soft and released in 2009. It sold well.");
    add("Hudson Soft", "Hudson Soft was a Japanese company founded in 1973. It was bought in 2012 by others.");
    add("Sega", "Sega is a company.");
    finish();
    table_ = parse_table(kGames, "here", [](const std::string& id) { return id == "d0" ? 0 : id == "d1" ? 1 : -1; });
  }
  Table table_;
};

TEST_F(LinkedTest, LinkAsksForACellByItsRow) {
  const auto all = collect([&](Random& random, auto& out) { make_links(corpus(), table_, random, out); });
  EXPECT_THAT(all, Contains(Pair("In Gaijinworks, which video game is listed with year 2009?", "Miami Law")));
  EXPECT_THAT(all,
              Contains(Pair("Gaijinworks (Published): what is the video game where the developer is Hudson Soft and "
                            "the year is 2009?",
                            "Miami Law")));
  for (const auto& [text, answer] : all) {
    EXPECT_EQ(answer, "Miami Law") << "the developer's passage holds no other cell of its row: " << text;
    EXPECT_THAT(last_[text].gold, ElementsAre(0));
  }
  // Without the year two games would answer.
  EXPECT_THAT(
      all, Not(Contains(Pair("In Gaijinworks, which video game is listed with developer Hudson Soft?", "Miami Law"))));
}

TEST_F(LinkedTest, BridgesGoByWayOfTheFirstDocument) {
  const auto by_table = collect([&](Random& random, auto& out) { make_table_bridges(corpus(), table_, random, out); });
  EXPECT_THAT(by_table, Contains(Pair("In which year was the developer of Miami Law founded?", "1973")));
  const auto by_text = collect([&](Random& random, auto& out) { make_text_bridges(corpus(), 0, random, out); });
  EXPECT_THAT(by_text, Contains(Pair("What kind of company was the developer of Miami Law?", "Japanese company")));
  for (const auto& [text, question] : last_) {
    EXPECT_THAT(question.gold, ElementsAre(0, 1)) << text;
    EXPECT_THAT(text, Not(HasSubstr("Hudson")));
  }
}

TEST_F(LinkedTest, ABridgeWhoseAnswerStandsInTheFirstDocumentIsNone) {
  documents_.clear();
  words_.clear();
  add("Miami Law", "Miami Law is a video game developed by Hudson Soft. It is a Japanese company of 1973.");
  add("Hudson Soft", "Hudson Soft was a Japanese company founded in 1973. It was bought in 2012 by others.");
  finish();
  EXPECT_THAT(collect([&](Random& random, auto& out) { make_text_bridges(corpus(), 0, random, out); }), IsEmpty());
}

TEST(Table, RefusesWhatIsNone) {
  const auto refuses = [](const std::string& line, const std::string& problem) {
    try {
      parse_table(line, "tables.jsonl:3", [](const std::string&) { return 0; });
      ADD_FAILURE() << line;
    } catch (const Error& error) {
      EXPECT_EQ(error.where(), "tables.jsonl:3");
      EXPECT_THAT(error.what(), HasSubstr(problem)) << line;
    }
  };
  refuses("", "JSON");
  refuses("[1]", "no JSON object");
  refuses(R"({"_id": "t"})", "\"title\" is missing");
  refuses(R"({"_id": 3, "title": "x", "header": [], "rows": []})", "\"_id\" is no string");
  refuses(R"({"_id": "t", "title": "x", "header": "a", "rows": []})", "\"header\" is no array");
  refuses(R"({"_id": "t", "title": "x", "header": [1], "rows": []})", "\"header\" is no string");
  refuses(R"({"_id": "t", "title": "x", "header": ["a"], "rows": [3]})", "\"rows\" is no array");
  refuses(R"({"_id": "t", "title": "x", "header": ["a"], "rows": [[]]})", "row 0 has 0 cells, not 1");
  refuses(R"({"_id": "t", "title": "x", "header": ["a"], "rows": [[{"text": "y"}]]})", "\"links\" is missing");
  refuses(R"({"_id": "t", "title": "x", "header": ["a"], "rows": [["y"]]})", "no JSON object");
  refuses(R"({"_id": "t", "title": "x", "header": ["a"], "rows": [[{"text": "y", "links": [7]}]]})", "no string");
}

TEST(Fair, QuestionsNeitherNameTheirAnswerNorAreTooShortOrLong) {
  EXPECT_TRUE(is_fair("When was the station opened?", {"1998"}));
  EXPECT_FALSE(is_fair("When was the station of 1998 opened?", {"1998"}));
  EXPECT_FALSE(is_fair("Who played for NEW YORK Knicks?", {"the moon", "New-York"}));
  EXPECT_FALSE(is_fair("Who else?", {"Lee"}));
  EXPECT_FALSE(is_fair("When was the station opened?", {"?"}));
  std::string text = "Who";
  for (int i = 0; i < 50; ++i) text += " really";
  EXPECT_FALSE(is_fair(text, {"Lee"}));
}

TEST_F(QuestionsTest, AnyTextIsSurvived) {
  const unsigned seed = std::random_device{}();
  SCOPED_TRACE("seed " + std::to_string(seed));
  std::mt19937 random(seed);
  const std::vector<std::string> pieces = {
      "Anna",     "It",   "He",  "was", "is",      "a",    "the",  "in",  "by",   "1998", "July", "11,",
      "directed", "film", "(",   ")",   ",",       ".",    ". ",   "and", "who",  "born", "-",    "Étage",
      "[",        "two",  "won", "has", "located", "\n",   "?",    ";",   "of",   "town", "The",  "on",
      "3",        "seas", "for", "\"",  "'s",      "Ohio", "with", "…",   "have", "also", "at"};
  const auto text = [&](size_t most) {
    std::string out;
    for (size_t n = random() % (most + 1); n > 0; --n)
      out += pieces[random() % pieces.size()] + (random() % 5 ? " " : "");
    return out;
  };
  for (int i = 0; i < 300; ++i) add(text(3), text(60));
  finish();
  std::vector<Question> questions;
  for (int32_t i = 0; i < 300; ++i) {
    Random draws(seed, std::to_string(i));
    make_inverse_cloze(source(i), draws, questions);
    make_fill_in(source(i), draws, questions);
    make_title(source(i), draws, questions);
    make_text_bridges(corpus(), i, draws, questions);
    Table table{"t", text(3), text(3), {text(2), text(2), "Director"}, {}};
    for (int row = 0; row < 3; ++row) {
      table.rows.push_back({{text(4), {i}}, {text(4), {}}, {text(2), {static_cast<int32_t>(random() % 300)}}});
    }
    make_links(corpus(), table, draws, questions);
    make_table_bridges(corpus(), table, draws, questions);
  }
  for (const Question& question : questions) {
    EXPECT_FALSE(question.text.empty());
    for (const int32_t gold : question.gold) EXPECT_LT(gold, 300);
  }
}

}  // namespace
}  // namespace msa::train
