#include "train/data/dataset.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <random>

#include "tiny_sets.h"

namespace msa::train {
namespace {

using ::testing::AllOf;
using ::testing::ElementsAre;
using ::testing::HasSubstr;
using ::testing::IsEmpty;

class DatasetTest : public ::testing::Test {
 protected:
  Dataset load(const std::string& name, int64_t max_tokens = 1000, bool titles = true) {
    return make_dataset(load_beir(sets_.path(name)), *sets_.tokenizer, {max_tokens, titles}, pool_);
  }

  TinySets sets_;
  ThreadPool pool_{3};
};

TEST_F(DatasetTest, TextsAsTheEngineAddsThem) {
  sets_.write_set("s", {{"a", "Title", "one  two"}, {"b", "Title", "x"}, {"c", "", "one two"}, {"d", "Void", ""}},
                  {{"q", "?", {"y"}, {"b", "c"}}, {"r", "!", {"y"}, {"c"}}});
  const Dataset data = load("s");
  EXPECT_EQ(sets_.decode(data.documents[0]), "Title\none  two");
  EXPECT_EQ(sets_.decode(data.documents[2]), "one two");
  EXPECT_EQ(data.text_hashes[0], data.text_hashes[2]);
  EXPECT_NE(data.text_hashes[0], data.text_hashes[3]);
  EXPECT_THAT(data.articles, ElementsAre(0, 0, 1, 2));
  EXPECT_THAT(data.questions_of(0), IsEmpty());
  EXPECT_THAT(data.questions_of(1), ElementsAre(0));
  EXPECT_THAT(data.questions_of(2), ElementsAre(0, 1));
  EXPECT_EQ(load("s", 5).documents[0].size(), 5u);
}

TEST_F(DatasetTest, TextsWithoutTheirTitles) {
  sets_.write_set("s", {{"a", "Title", "one  two"}, {"b", "Title", "x"}, {"d", "Void", ""}},
                  {{"q", "?", {"y"}, {"b"}}});
  const Dataset data = load("s", 1000, /*titles=*/false);
  EXPECT_EQ(sets_.decode(data.documents[0]), "one  two");
  EXPECT_EQ(sets_.decode(data.documents[2]), "Void\n");
  EXPECT_THAT(data.articles, ElementsAre(0, 0, 1));
  EXPECT_EQ(data.text_hashes, load("s").text_hashes);
}

TEST_F(DatasetTest, OneFolderMayServeWithAndWithoutTitles) {
  sets_.write_set("s", {{"a", "Title", "x"}}, {{"q", "?", {"y"}, {"a"}}});
  DataRecipe recipe;
  recipe.held_out = 0;
  for (const bool titles : {true, false, false}) {
    SetRecipe set;
    set.folder = sets_.path("s");
    set.titles = titles;
    recipe.sets.push_back(set);
  }
  const TrainingData data = load_training_data(recipe, *sets_.tokenizer, pool_);
  ASSERT_EQ(data.datasets.size(), 2u);
  EXPECT_EQ(data.sets[1].dataset, data.sets[2].dataset);
  EXPECT_EQ(sets_.decode(data.datasets[static_cast<size_t>(data.sets[0].dataset)].documents[0]), "Title\nx");
  EXPECT_EQ(sets_.decode(data.datasets[static_cast<size_t>(data.sets[1].dataset)].documents[0]), "x");
}

TEST_F(DatasetTest, QuestionsOfTheSameWordsShareTheirGoldDocuments) {
  sets_.write_set("s", {{"a", "", "x"}, {"b", "", "y"}, {"c", "", "z"}},
                  {{"q", "Who?", {"1"}, {"a"}}, {"r", "Who?", {"2"}, {"b", "a"}}, {"s", "What?", {"3"}, {"c"}}});
  const Dataset data = load("s");
  EXPECT_THAT(data.questions[0].possible, ElementsAre(1));
  EXPECT_THAT(data.questions[1].possible, IsEmpty());
  EXPECT_THAT(data.questions[2].possible, IsEmpty());
}

TEST_F(DatasetTest, ThreadsDoNotChangeTheOrder) {
  sets_.write_numbered_set("s", 1000);
  const Dataset data = load("s");
  ASSERT_EQ(data.documents.size(), 1000);
  for (int i = 0; i < 1000; ++i) {
    const std::string number = std::to_string(i);
    const std::string title = "Article " + std::to_string(i / 4);
    EXPECT_EQ(sets_.decode(data.documents[i]), title + "\ns text " + number + " says ans" + number);
  }
}

TEST_F(DatasetTest, HeldOutQuestions) {
  sets_.write_numbered_set("s", 500);
  const Dataset data = load("s");
  const QuestionSplit split = split_questions(data, {}, 0.1);
  EXPECT_EQ(split.train.size() + split.held_out.size(), 1000u);
  EXPECT_GT(split.held_out.size(), 50u);
  EXPECT_LT(split.held_out.size(), 150u);
  for (const int32_t q : split.held_out) {
    EXPECT_TRUE(is_held_out(data.questions[static_cast<size_t>(q)].id, 0.1));
    EXPECT_TRUE(is_held_out(data.questions[static_cast<size_t>(q)].id, 0.2));
  }
  EXPECT_THAT(split_questions(data, {}, 0).held_out, IsEmpty());
  const std::vector<std::string> types = {"a"};
  for (const int32_t q : split_questions(data, types, 0.1).train) {
    EXPECT_EQ(data.questions[static_cast<size_t>(q)].type, "a");
  }
}

TEST_F(DatasetTest, ScoreFiles) {
  sets_.write_numbered_set("s", 10);
  const Dataset data = load("s");
  const auto read = [&](const std::string& bytes, ScoreTable::Columns columns = ScoreTable::Columns::kWithScores) {
    sets_.write("run.tsv", bytes);
    return ScoreTable::load(sets_.path("run.tsv"), data, columns);
  };
  for (const char* bytes : {"query-id\tcorpus-id\tscore\nq3a\td9\t2.5\nq0a\td1\t1e1\nq3a\td2\t-1\n",
                            "q3a\td9\t2.5\r\nq0a\td1\t10\r\nq3a\td2\t-1\r\n",
                            "q3a Q0 d9 1 2.5 bm25\nq3a  Q0 d2 2 -1 bm25\nq0a Q0 d1 1 10 bm25\n"}) {
    const ScoreTable table = read(bytes);
    ASSERT_EQ(table.of(6).size(), 2u) << bytes;
    EXPECT_EQ(table.of(6)[0].document, 9);
    EXPECT_EQ(table.of(6)[0].score, 2.5f);
    EXPECT_EQ(table.of(6)[1].document, 2);
    EXPECT_EQ(table.of(0)[0].score, 10.0f);
    EXPECT_THAT(table.of(1), IsEmpty());
  }
  EXPECT_EQ(read("q0a\td1\nq0a\td2\n", ScoreTable::Columns::kScoresOptional).of(0).size(), 2u);
  EXPECT_THAT(ScoreTable().of(5), IsEmpty());

  const auto error = [&](const std::string& bytes) { return error_of([&] { read(bytes); }); };
  EXPECT_THAT(error("q0a\td1\t1\nq0a\td2\n"), AllOf(HasSubstr("run.tsv:2"), HasSubstr("2 columns")));
  EXPECT_THAT(error("q0a d1 1 1 1\n"), HasSubstr("5 columns"));
  EXPECT_THAT(error("q0a\td1\thigh\n"), AllOf(HasSubstr("run.tsv:1"), HasSubstr("'high' is no finite number")));
  EXPECT_THAT(error("q0a\td1\tnan\n"), HasSubstr("no finite number"));
  EXPECT_THAT(error("q0a\td1\t\n"), HasSubstr("no finite number"));
  EXPECT_THAT(error("q99\td1\t1\n"), HasSubstr("no question 'q99'"));
  EXPECT_THAT(error("q0a\td99\t1\n"), HasSubstr("no document 'd99'"));
  EXPECT_THAT(error("q0a\td1\t1\nq0a\td1\t2\n"), AllOf(HasSubstr("'d1' stands twice"), HasSubstr("'q0a'")));
  EXPECT_THAT(error(""), HasSubstr("nothing in it"));
  EXPECT_THAT(error_of([&] { ScoreTable::load(sets_.path("none"), data, ScoreTable::Columns::kWithScores); }),
              HasSubstr("no such file"));
}

TEST_F(DatasetTest, RandomScoreFilesNeverCrash) {
  sets_.write_numbered_set("s", 10);
  const Dataset data = load("s");
  const std::string good = "query-id\tcorpus-id\tscore\nq3a\td9\t2.5\nq0a\td1\t1e1\nq3a Q0 d2 1 0.5 x\n";
  const unsigned seed = std::random_device{}();
  SCOPED_TRACE("seed " + std::to_string(seed));
  std::mt19937 random(seed);
  for (int round = 0; round < 1000; ++round) {
    std::string bytes = good;
    for (int i = 0; i < 2; ++i) bytes[random() % bytes.size()] = static_cast<char>(random());
    sets_.write("random.tsv", bytes);
    error_of([&] { ScoreTable::load(sets_.path("random.tsv"), data, ScoreTable::Columns::kScoresOptional); });
  }
}

TEST_F(DatasetTest, VectorsOfATeacherMustBelongToTheSet) {
  sets_.write_numbered_set("s", 10);
  sets_.write_numbered_set("t", 10);
  std::vector<uint16_t> half(1000, float_to_half(0.5F));
  const auto write = [&](const char* name, int64_t documents, int64_t width, const char* model = "m",
                         DType type = DType::kF16) {
    write_safetensors(sets_.path(name),
                      {{"documents", Tensor(half.data(), type, {documents, width})},
                       {"questions", Tensor(half.data(), DType::kF16, {20, width})}},
                      {{"model", model}});
  };
  const auto error = [&](const std::string& sets) { return error_of([&] { sets_.load(sets_.recipe(sets)); }); };
  const auto set = [](const std::string& folder, const std::string& file) {
    return "[[data.sets]]\nfolder = \"" + folder + "\"\nteacher_vectors = \"" + file + "\"\n";
  };
  write("v", 10, 4);
  EXPECT_EQ(error(set("s", "v") + set("s", "v") + set("t", "v")), "no error");
  write("short", 9, 4);
  EXPECT_THAT(error(set("s", "short")), AllOf(HasSubstr("9 rows"), HasSubstr("10 documents")));
  write("bf16", 10, 4, "m", DType::kBF16);
  EXPECT_THAT(error(set("s", "bf16")), HasSubstr("no float16 matrix"));
  write("other", 10, 4, "n");
  EXPECT_THAT(error(set("s", "v") + set("t", "other")), HasSubstr("another set are of 'm'"));
  write("wide", 10, 8);
  EXPECT_THAT(error(set("s", "v") + set("t", "wide")), HasSubstr("make all files with one model"));
  EXPECT_THAT(error(set("s", "v") + set("s", "wide")), HasSubstr("name one file in both"));
  half[7] = 0x7C00;
  write("infinite", 10, 4);
  EXPECT_THAT(error(set("s", "infinite")), HasSubstr("row 1 of tensor 'documents' is not finite"));
  EXPECT_THAT(error(set("s", "v") + "teacher = \"x\"\n"), HasSubstr("a set has one teacher"));
}

TEST_F(DatasetTest, BrokenSetsAreRefusedBeforeTraining) {
  sets_.write_numbered_set("s", 10);
  sets_.write_set("silent", {{"a", "", "x"}}, {{"q", "?", {}, {"a"}}});
  const auto error = [&](const std::string& set, const std::string& more = "") {
    return error_of([&] { sets_.load(sets_.recipe(more + "[[data.sets]]\n" + set)); });
  };
  EXPECT_EQ(error("folder = \"s\"\n"), "no error");
  EXPECT_THAT(error("folder = \"none\"\n"), HasSubstr("no such folder"));
  EXPECT_THAT(error("folder = \"s\"\ntypes = [\"z\"]\n"), HasSubstr("no question is of type 'z'"));
  EXPECT_THAT(error("folder = \"silent\"\nreading_only = true\n"), HasSubstr("no question has answers"));
  EXPECT_THAT(error("folder = \"s\"\nteacher = \"none.tsv\"\n"), HasSubstr("none.tsv"));
  EXPECT_THAT(error("folder = \"s\"\n", "corpus = \"void\"\n"), HasSubstr("void"));
  std::filesystem::remove(sets_.folder.path() / "s/qrels.tsv");
  EXPECT_THAT(error("folder = \"s\"\n"), AllOf(HasSubstr("qrels.tsv"), HasSubstr("no such file")));
}

}  // namespace
}  // namespace msa::train
