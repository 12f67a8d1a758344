// Sentences, and what a first sentence says.
#include "train/make_data/page.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

namespace msa::train {
namespace {

using ::testing::ElementsAre;

TEST(Sentences, EndAtMarksButNotAtAbbreviationsInitialsAndInsideBrackets) {
  EXPECT_THAT(
      split_sentences("Dr. J. R. Smith (born in St. Ives. He left.) met the U. S. envoy. Did he? Yes! In 1990."),
      ElementsAre("Dr. J. R. Smith (born in St. Ives. He left.) met the U. S. envoy.", "Did he?", "Yes!", "In 1990."));
  EXPECT_THAT(split_sentences("It cost 3.5 million. e.g. this. "), ElementsAre("It cost 3.5 million. e.g. this."));
  EXPECT_THAT(split_sentences("one. Two"), ElementsAre("one.", "Two"));
  EXPECT_TRUE(split_sentences("").empty());
  EXPECT_TRUE(split_sentences(" \n ").empty());
  EXPECT_THAT(split_sentences("(open. Never closed. "), ElementsAre("(open. Never closed."));
}

TEST(Sentences, LoseTheirBrackets) {
  EXPECT_EQ(without_brackets("Anna (née Roe (sic)) sang [a] ) well."), "Anna sang ) well.");
}

TEST(Tokens, KeepMarksApartAndJoinAsWritten) {
  const Tokens t = tokenise("On July 11, 1998, it opened ; then  closed.");
  EXPECT_EQ(join(t), "On July 11, 1998, it opened; then closed");
  EXPECT_EQ(join(t, 1, 4), "July 11, 1998");
  EXPECT_EQ(date_length(t, 1), 3u);
  EXPECT_EQ(date_length(t, 2), 0u);
  EXPECT_TRUE(tokenise(" , . ").size() <= 1);
}

TEST(Tokens, AreClassified) {
  EXPECT_TRUE(is_capitalised("Étage"));
  EXPECT_FALSE(is_capitalised("étage"));
  EXPECT_TRUE(is_year("1998"));
  EXPECT_FALSE(is_year("9998"));
  EXPECT_TRUE(is_number("1,234"));
  EXPECT_TRUE(is_number("twelve"));
  EXPECT_FALSE(is_number("-"));
  EXPECT_EQ(date_length(tokenise("11 July 1998"), 0), 3u);
  EXPECT_EQ(date_length(tokenise("June 2003 he"), 0), 2u);
  EXPECT_EQ(date_length(tokenise("41st July"), 0), 0u);
}

class PageTest : public ::testing::Test {
 protected:
  Page page(const std::string& title, const std::string& text) {
    const std::vector<BeirDocument> documents = {{"d", title, text}};
    return Catalogue(documents, pool_).page(0);
  }
  ThreadPool pool_{1};
};

TEST_F(PageTest, KnowsAPerson) {
  const Page p =
      page("David Lee (basketball)",
           "David Lee (born April 29, 1983) is an American former professional basketball player. He played.");
  EXPECT_EQ(p.name, "David Lee");
  EXPECT_EQ(p.subject, "David Lee");
  EXPECT_EQ(p.copula, "is");
  EXPECT_EQ(p.predicate, "American former professional basketball player");
  EXPECT_EQ(p.type, p.predicate);
  EXPECT_EQ(p.noun, "player");
  EXPECT_EQ(p.born, "April 29, 1983");
  EXPECT_TRUE(p.is_person);
}

TEST_F(PageTest, KnowsLifeDates) {
  const Page p =
      page("Emmanuel Roblès",
           "Emmanuel Roblès (4 May 1914 in Oran, French Algeria - 22 February 1995 in Boulogne) was a French "
           "author. He was elected.");
  EXPECT_EQ(p.born, "4 May 1914");
  EXPECT_EQ(p.died, "22 February 1995");
  EXPECT_EQ(p.type, "French author");
}

TEST_F(PageTest, KnowsAThing) {
  const Page p = page("Beatles", "The Beatles were an English rock band formed in Liverpool in 1960. It sold.");
  EXPECT_EQ(p.subject, "the Beatles");
  EXPECT_EQ(p.predicate, "English rock band");
  EXPECT_FALSE(p.is_person);
  EXPECT_EQ(page("Antón", "Antón is a corregimiento in Coclé Province, Panama. It is.").predicate,
            "corregimiento in Coclé Province, Panama");
}

TEST_F(PageTest, GuessesNothingFromSentencesAboutOthers) {
  EXPECT_EQ(page("1945 in aviation", "This is a list of events from 1945: planes.").predicate, "");
  EXPECT_EQ(page("Anna", "Her brother was a sailor.").copula, "");
  EXPECT_EQ(page("", "Anna is a singer.").name, "");
  EXPECT_EQ(page(" . ", "Anna is a singer.").name, "");
  EXPECT_EQ(page("Anna", "").predicate, "");
  // "media" is half of a noun phrase.
  EXPECT_EQ(page("Corus", "Corus is a media and entertainment company.").type, "");
}

TEST_F(PageTest, TellsSharedNamesApart) {
  const std::vector<BeirDocument> documents = {{"a", "Lee (actor)", "Lee is an actor."},
                                               {"b", "Lee (singer)", "Lee is a singer."},
                                               {"c", "Twin", "Twin is a town."},
                                               {"d", "Twin", "Twin is a river."}};
  const Catalogue catalogue(documents, pool_);
  EXPECT_EQ(catalogue.page(0).subject, "Lee (actor)");
  EXPECT_EQ(catalogue.find("Lee"), -1);
  EXPECT_EQ(catalogue.find("Lee (singer)"), 1);
  EXPECT_EQ(catalogue.page(2).subject, "");
  EXPECT_EQ(catalogue.find("Nobody"), -1);
}

}  // namespace
}  // namespace msa::train
