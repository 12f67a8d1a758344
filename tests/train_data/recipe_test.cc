#include "train/data/recipe.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <random>

#include "tiny_sets.h"

namespace msa::train {
namespace {

using ::testing::AllOf;
using ::testing::ElementsAre;
using ::testing::HasSubstr;

DataRecipe parse(const std::string& data) {
  const toml::table table = toml::parse("[data]\n" + data);
  return parse_data_recipe(TomlFields(table, "recipe.toml", "").need_table("data"), "/sets");
}
std::string error_in(const std::string& data) {
  return error_of([&] { parse(data); });
}

constexpr const char* kSet = "[[data.sets]]\nfolder = \"a\"\n";

TEST(RecipeTest, DefaultsAndPaths) {
  const DataRecipe recipe =
      parse(std::string("corpus = \"../c\"\n") + kSet + "hard_negatives = \"/x/h.tsv\"\nteacher = \"t.tsv\"\n");
  ASSERT_EQ(recipe.sets.size(), 1u);
  EXPECT_EQ(recipe.sets[0].folder, "/sets/a");
  EXPECT_EQ(recipe.sets[0].hard_negatives, "/x/h.tsv");
  EXPECT_EQ(recipe.sets[0].teacher, "/sets/t.tsv");
  EXPECT_EQ(recipe.corpus, "/c");
  EXPECT_EQ(recipe.samples, 96);
  EXPECT_EQ(recipe.pool_tokens.at(1 << 20), 1 << 15);
  EXPECT_EQ(recipe.extra_tokens.at(0), 0);
  EXPECT_THAT(recipe.top_k.at(0).values, ElementsAre(16));
}

TEST(RecipeTest, Schedules) {
  const DataRecipe recipe = parse(
      "pool_tokens = [{from = 0, tokens = 8192}, {from = 100, tokens = 65536}]\nextra_tokens = 5\n"
      "top_k = [{from = 0, values = [16]}, {from = 7, values = [1, 2], shares = [1, 3.5]}]\n" +
      std::string(kSet));
  EXPECT_EQ(recipe.pool_tokens.at(0), 8192);
  EXPECT_EQ(recipe.pool_tokens.at(99), 8192);
  EXPECT_EQ(recipe.pool_tokens.at(100), 65536);
  EXPECT_EQ(recipe.extra_tokens.at(3), 5);
  EXPECT_THAT(recipe.top_k.at(6).values, ElementsAre(16));
  EXPECT_THAT(recipe.top_k.at(7).values, ElementsAre(1, 2));
  EXPECT_THAT(recipe.top_k.at(7).shares, ElementsAre(1.0, 3.5));
}

TEST(RecipeTest, CounterfactualSetsAreOnlyRead) {
  const DataRecipe recipe = parse(std::string(kSet) + "counterfactual = true\n");
  EXPECT_TRUE(recipe.sets[0].reading_only);
  EXPECT_EQ(recipe.sets[0].retrieve, 0);
  EXPECT_EQ(recipe.sets[0].rerank, 0);
  EXPECT_THAT(error_in(std::string(kSet) + "reading_only = true\nretrieve = 1\n"), HasSubstr("nothing to retrieve"));
  EXPECT_THAT(error_in(std::string(kSet) + "reading_only = true\nrerank = 1\n"), HasSubstr("data.sets[0].rerank"));
}

TEST(RecipeTest, ErrorsNameFileLineAndField) {
  EXPECT_THAT(error_in(""), HasSubstr("there is no set"));
  EXPECT_THAT(
      error_in("samlpes = 3\n" + std::string(kSet)),
      AllOf(HasSubstr("recipe.toml:2: data.samlpes"), HasSubstr("unknown field 'samlpes'"), HasSubstr("samples")));
  EXPECT_THAT(error_in(std::string(kSet) + "wieght = 1\n"), HasSubstr("recipe.toml:4: data.sets[0].wieght"));
  EXPECT_THAT(error_in("[[data.sets]]\nweight = 1\n"), AllOf(HasSubstr("data.sets[0].folder"), HasSubstr("missing")));
  EXPECT_THAT(error_in("samples = \"many\"\n" + std::string(kSet)), HasSubstr("must be a whole number"));
  EXPECT_THAT(error_in("samples = 1.5\n" + std::string(kSet)), HasSubstr("must be a whole number"));
  EXPECT_THAT(error_in("samples = 0\n" + std::string(kSet)), HasSubstr("between 1 and"));
  EXPECT_THAT(error_in("held_out = nan\n" + std::string(kSet)), HasSubstr("between 0 and 0.9"));
  EXPECT_THAT(error_in("sets = 3\n"), HasSubstr("must be an array"));
  EXPECT_THAT(error_in("sets = [3]\n"), HasSubstr("must hold tables"));
  EXPECT_THAT(error_in(std::string(kSet) + "types = [1]\n"), HasSubstr("must be a string"));
  EXPECT_THAT(error_in(std::string(kSet) + "weight = 0\n"), HasSubstr("every weight is 0"));
  EXPECT_THAT(error_in(std::string(kSet) + "retrieve = 0\nanswer = 0\n"), HasSubstr("both 0"));
  EXPECT_THAT(error_in(std::string(kSet) + "reading_only = 1\n"), HasSubstr("true or false"));
  EXPECT_THAT(error_in("rerank_questions = 4\n" + std::string(kSet) + "rerank = 0\n"),
              HasSubstr("no set has questions for them"));
  EXPECT_THAT(error_in("language_share = 0.5\nreconstruct_share = 0.5\n" + std::string(kSet)), HasSubstr("no room"));
  EXPECT_THAT(error_in("pool_tokens = 100\n" + std::string(kSet)), HasSubstr("twice max_document_tokens"));
  EXPECT_THAT(error_in("pool_tokens = []\n" + std::string(kSet)), HasSubstr("no phase"));
  EXPECT_THAT(error_in("pool_tokens = [{from = 5, tokens = 8192}]\n" + std::string(kSet)),
              HasSubstr("begin with step 0"));
  EXPECT_THAT(error_in("top_k = [{from = 0, values = []}]\n" + std::string(kSet)), HasSubstr("no value"));
  EXPECT_THAT(error_in("top_k = [{from = 0, values = [1, 2], shares = [1]}]\n" + std::string(kSet)),
              HasSubstr("one share for each value"));
  EXPECT_THAT(error_in("top_k = [{from = 0, values = [1], shares = [0]}]\n" + std::string(kSet)), HasSubstr("above 0"));
}

TEST(RecipeTest, BrokenFile) {
  const TinySets sets;
  sets.write("broken.toml", "[data]\nsamples = = 3\n");
  EXPECT_THAT(error_of([&] { read_toml(sets.path("broken.toml")); }),
              AllOf(HasSubstr("broken.toml:2:"), HasSubstr("broken TOML")));
  sets.write("other.toml", "[date]\n");
  const toml::table other = read_toml(sets.path("other.toml"));
  EXPECT_THAT(error_of([&] { TomlFields(other, "other.toml", "").need_table("data"); }), HasSubstr("missing"));
  EXPECT_THAT(error_of([&] { read_toml(sets.path("none.toml")); }), HasSubstr("none.toml"));
}

TEST(RecipeTest, RandomBytesNeverCrash) {
  const TinySets sets;
  const std::string good =
      "[data]\nsamples = 9\npool_tokens = [{from = 0, tokens = 8192}]\ntop_k = [{from = 0, values = [1, 2]}]\n"
      "held_out = 1e-2\n[[data.sets]]\nfolder = \"a\"\ntypes = [\"x\"]\nanswer = 0.5\n";
  const unsigned seed = std::random_device{}();
  SCOPED_TRACE("seed " + std::to_string(seed));
  std::mt19937 random(seed);
  for (int round = 0; round < 2000; ++round) {
    std::string bytes = good;
    for (int i = 0; i < 3; ++i) {
      const size_t at = random() % bytes.size();
      bytes[at] = round % 2 == 0 ? static_cast<char>(random()) : good[random() % good.size()];
    }
    sets.write("random.toml", bytes);
    error_of([&] {
      const toml::table table = read_toml(sets.path("random.toml"));
      parse_data_recipe(TomlFields(table, "random.toml", "").need_table("data"), "/sets");
    });
  }
}

}  // namespace
}  // namespace msa::train
