// The whole of it: a folder in, a folder out.
#include "train/make_data/make_data.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <unistd.h>

#include <filesystem>
#include <fstream>
#include <map>
#include <set>

#include "core/error.h"
#include "io/beir.h"
#include "io/file.h"
#include "train/data/words.h"

namespace msa::train {
namespace {

namespace fs = std::filesystem;
using ::testing::HasSubstr;

constexpr int kTowns = 40;
constexpr const char* kFiles[] = {"corpus.jsonl.zst", "queries.jsonl.zst", "qrels.tsv", "hard_negatives.tsv"};

class MakeDataTest : public ::testing::Test {
 protected:
  MakeDataTest() : root_(fs::temp_directory_path() / ("make_data_test_" + std::to_string(getpid()))) {
    fs::create_directories(root_ / "corpus");
    options_.corpus = root_ / "corpus";
    options_.output = root_ / "out";
    options_.most.fill(kAllQuestions);
    options_.hard_negatives = 4;
    options_.threads = 1;
    write_corpus();
    write("tables.jsonl", table());
  }
  ~MakeDataTest() override { fs::remove_all(root_); }

  void write(const std::string& name, const std::string& text) { std::ofstream(root_ / "corpus" / name) << text; }

  /// Towns and their mayors; each town's passage names its mayor.
  void write_corpus() {
    std::string lines;
    for (int i = 0; i < kTowns; ++i) {
      const std::string n = std::to_string(i);
      const std::string year = std::to_string(1800 + i);
      lines += R"({"_id":"town)" + n + R"(","title":"Upper Vale )" + n + R"(","text":"Upper Vale )" + n +
               R"( is a town in Ohio, United States. It was founded in )" + year +
               R"( by settlers. It was designed by Mary Stone )" + n +
               R"( with care for the Hills of Ohio. The town has 3 mills and 12 bridges over the Elk River."})"
               "\n";
      lines +=
          R"({"_id":"mayor)" + n + R"(","title":"Mary Stone )" + n + R"(","text":"Mary Stone )" + n + R"( (born )" +
          std::to_string(1 + i % 28) + " May " + std::to_string(1700 + i) +
          R"() was an American architect. She studied in Boston and won two prizes in New York. She died in 1860."})"
          "\n";
    }
    write("corpus.jsonl", lines);
  }

  static std::string table() {
    std::string rows;
    for (int i = 0; i < kTowns; ++i) {
      const std::string n = std::to_string(i);
      rows += std::string(i ? "," : "") + R"([{"text":"Upper Vale )" + n + R"(","links":["town)" + n +
              R"("]},{"text":")" + std::to_string(1800 + i) + R"(","links":[]},{"text":"Mary Stone )" + n +
              R"(","links":["mayor)" + n + R"("]}])";
    }
    return R"({"_id":"t0","title":"Towns of Ohio","section_title":"","header":["Town","Founded","Architect"],"rows":[)" +
           rows + "]}\n";
  }

  std::map<std::string, std::string> output() const {
    std::map<std::string, std::string> bytes;
    for (const char* file : kFiles) bytes[file] = read_file(options_.output + "/" + file);
    return bytes;
  }

  void expect_error(const std::string& what, const std::string& where) {
    try {
      make_data(options_);
      ADD_FAILURE() << "no error: " << what;
    } catch (const Error& error) {
      EXPECT_THAT(error.what(), HasSubstr(what));
      EXPECT_THAT(error.where(), HasSubstr(where));
    }
    EXPECT_FALSE(fs::exists(options_.output)) << "nothing may be written";
  }

  fs::path root_;
  MakeDataOptions options_;
};

TEST_F(MakeDataTest, WritesASetThatHoldsWhatItPromises) {
  const MakeDataReport report = make_data(options_);
  EXPECT_EQ(report.documents, 2 * kTowns);
  EXPECT_EQ(report.tables, 1);
  for (size_t kind = 0; kind < kQuestionKinds; ++kind) EXPECT_GT(report.kept[kind], 0) << kQuestionKindNames[kind];

  const BeirSet set = load_beir(options_.output);
  ASSERT_EQ(set.documents.size(), 2u * kTowns);
  EXPECT_EQ(set.documents[0].id, "town0");
  std::set<std::string> texts;
  for (const BeirQuestion& question : set.questions) {
    SCOPED_TRACE(question.text);
    EXPECT_TRUE(texts.insert(spaced_words(question.text)).second) << "given twice";
    ASSERT_FALSE(question.gold.empty());
    if (question.type == "bridge") {
      ASSERT_EQ(question.hops.size(), 2u);
      EXPECT_EQ(question.hops, question.gold);
      EXPECT_NE(question.hops[0], question.hops[1]);
    } else {
      EXPECT_EQ(question.gold.size(), 1u);
      EXPECT_TRUE(question.hops.empty());
    }
    EXPECT_EQ(question.answers.empty(), question.type == "inverse_cloze");
    const std::string gold = spaced_words(set.documents[static_cast<size_t>(question.gold.back())].full_text());
    for (const std::string& answer : question.answers) {
      EXPECT_TRUE(contains_words(gold, spaced_words(answer))) << answer;
      EXPECT_FALSE(contains_words(spaced_words(question.text), spaced_words(answer))) << answer;
    }
  }
  EXPECT_THAT(read_file(options_.output + "/SOURCE"), HasSubstr("seed: 1\n"));
}

TEST_F(MakeDataTest, HardNegativesAreNeitherGoldNorHoldTheAnswer) {
  const MakeDataReport report = make_data(options_);
  EXPECT_GT(report.hard_negatives, 0);
  const BeirSet set = load_beir(options_.output);
  std::map<std::string, const BeirQuestion*> questions;
  for (const BeirQuestion& question : set.questions) questions[question.id] = &question;
  std::map<std::string, int32_t> documents;
  for (size_t i = 0; i < set.documents.size(); ++i) documents[set.documents[i].id] = static_cast<int32_t>(i);
  std::map<std::string, int> counts;
  std::ifstream file(options_.output + "/hard_negatives.tsv");
  std::string query;
  std::string document;
  ASSERT_TRUE(file >> query >> document);
  EXPECT_EQ(query + " " + document, "query-id corpus-id");
  while (file >> query >> document) {
    const BeirQuestion& question = *questions.at(query);
    const int32_t number = documents.at(document);
    EXPECT_EQ(std::count(question.gold.begin(), question.gold.end(), number), 0);
    const std::string words = spaced_words(set.documents[static_cast<size_t>(number)].full_text());
    for (const std::string& answer : question.answers) {
      EXPECT_FALSE(contains_words(words, spaced_words(answer))) << question.text << " " << document;
    }
    EXPECT_LE(++counts[query], 4);
  }
}

TEST_F(MakeDataTest, RemovedSentencesLeaveTheirDocument) {
  options_.most = {kAllQuestions, 0, 0, 0, 0};
  for (const double share : {0.0, 0.5, 1.0}) {
    options_.removed_share = share;
    const MakeDataReport report = make_data(options_);
    const int64_t questions = report.kept[0];
    ASSERT_GT(questions, 0);
    const double changed = static_cast<double>(report.changed_documents) / static_cast<double>(questions);
    EXPECT_NEAR(changed, share, share == 0.5 ? 0.25 : 0);
    const BeirSet set = load_beir(options_.output);
    std::map<std::string, bool> is_removed;
    for_each_line(options_.output + "/queries.jsonl.zst", kMaxBeirLineBytes,
                  [&](std::string_view line, const std::string& where) {
                    is_removed[parse_beir_query(line, where).id] = line.find("\"removed\":true") != line.npos;
                  });
    for (const BeirQuestion& question : set.questions) {
      // A pronoun at the front was replaced: compare what follows.
      const std::string words = spaced_words(question.text);
      const std::string end = words.substr(words.size() / 2);
      const std::string& text = set.documents[static_cast<size_t>(question.gold[0])].text;
      EXPECT_EQ(spaced_words(text).find(end) == std::string::npos, is_removed[question.id]) << question.text;
      EXPECT_EQ(text.find("  "), std::string::npos);
    }
  }
}

TEST_F(MakeDataTest, TheSameSeedGivesTheSameBytes) {
  make_data(options_);
  const auto first = output();
  options_.threads = 3;
  make_data(options_);
  EXPECT_EQ(output(), first);
  options_.seed = 2;
  make_data(options_);
  EXPECT_NE(output().at("queries.jsonl.zst"), first.at("queries.jsonl.zst"));
}

TEST_F(MakeDataTest, CountsAndLimitsHold) {
  options_.most = {3, 0, 5, 2, 1};
  options_.hard_negatives = 0;
  options_.limit_documents = 20;
  const MakeDataReport report = make_data(options_);
  EXPECT_EQ(report.kept, (std::array<int64_t, kQuestionKinds>{3, 0, 5, 2, 1}));
  EXPECT_EQ(report.documents, 20);
  EXPECT_EQ(load_beir(options_.output).questions.size(), 11u);
}

TEST_F(MakeDataTest, QuestionsOfTheCorpusAreNeverRead) {
  write("queries.jsonl", "this is no JSON");
  write("qrels.tsv", "nor is this a table");
  EXPECT_NO_THROW(make_data(options_));
}

TEST_F(MakeDataTest, WorksWithoutTables) {
  fs::remove(root_ / "corpus" / "tables.jsonl");
  const MakeDataReport report = make_data(options_);
  EXPECT_EQ(report.kept[static_cast<size_t>(QuestionKind::kLink)], 0);
  EXPECT_GT(report.kept[static_cast<size_t>(QuestionKind::kBridge)], 0);
}

TEST_F(MakeDataTest, BadInputIsRefused) {
  write("tables.jsonl", table() + "{\"_id\":\n");
  expect_error("JSON", "tables.jsonl:2");
  write("tables.jsonl", table());
  write("corpus.jsonl", "{\"_id\":\"a\",\"text\":3}\n");
  expect_error("no string", "corpus.jsonl:1");
  write("corpus.jsonl", "{\"_id\":\"a\",\"text\":\"short\"}\n");
  expect_error("no questions could be made", "corpus");
  fs::remove(root_ / "corpus" / "corpus.jsonl");
  expect_error("no such file", "corpus.jsonl");
  options_.corpus = root_ / "nowhere";
  expect_error("no such folder", "nowhere");
}

TEST_F(MakeDataTest, BadOptionsAreRefused) {
  const MakeDataOptions good = options_;
  options_.most[2] = -2;
  expect_error("negative", "title");
  options_ = good;
  options_.removed_share = 1.5;
  expect_error("not between", "share");
  options_ = good;
  options_.hard_negatives = -1;
  expect_error("not between", "hard negatives");
  options_ = good;
  options_.limit_documents = -1;
  expect_error("negative", "limit");
  options_ = good;
  options_.corpus = "";
  expect_error("no corpus", "corpus");
  options_ = good;
  options_.output = options_.corpus + "/.";
  EXPECT_THROW(make_data(options_), Error);
}

TEST_F(MakeDataTest, AnExceptionFromProgressEndsItUnwritten) {
  struct Stop {};
  EXPECT_THROW(make_data(options_, [](std::string_view, int64_t, int64_t) { throw Stop(); }), Stop);
  EXPECT_FALSE(fs::exists(options_.output));
}

}  // namespace
}  // namespace msa::train
