#include "io/beir.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <stdlib.h>
#include <zstd.h>

#include <filesystem>
#include <fstream>
#include <random>

#include "core/error.h"

namespace msa {
namespace {

namespace fs = std::filesystem;
using testing::AllOf;
using testing::ElementsAre;
using testing::HasSubstr;
using testing::IsEmpty;

constexpr const char* kCorpus =
    "{\"_id\":\"d1\",\"title\":\"T\",\"text\":\"one\"}\r\n\n{\"_id\":2,\"text\":\"two\"}\n"
    "{\"_id\":\"void\",\"text\":\" \"}\n{\"_id\":\"d3\",\"title\":null,\"text\":\"three\"}\n";
constexpr const char* kQueries =
    "\xEF\xBB\xBF{\"_id\":\"q1\",\"text\":\"which?\",\"answers\":[\"a\",\"b\"],\"type\":\"t\",\"hops\":[\"d3\",\"d1\"]}"
    "\n"
    "{\"_id\":\"q2\",\"text\":\"and?\"}\n";
constexpr const char* kQrels = "query-id\tcorpus-id\tscore\nq1\td1\t1\r\nq1\td3\t2\nq1\td3\t1\nq2\t2\t0\nq2\tvoid\t1\n";

class BeirTest : public testing::Test {
 protected:
  BeirTest() {
    std::string name = (fs::temp_directory_path() / "beir_test_XXXXXX").string();
    folder_ = mkdtemp(name.data());
    write("corpus.jsonl", kCorpus);
    write("queries.jsonl", kQueries);
    write("qrels.tsv", kQrels);
  }
  ~BeirTest() override { fs::remove_all(folder_); }

  void write(const std::string& name, const std::string& bytes) const {
    std::ofstream(folder_ / name, std::ios::binary) << bytes;
  }
  void compress(const std::string& name) const {
    std::ifstream in(folder_ / name, std::ios::binary);
    const std::string text((std::istreambuf_iterator<char>(in)), {});
    std::string bytes(ZSTD_compressBound(text.size()), '\0');
    bytes.resize(ZSTD_compress(bytes.data(), bytes.size(), text.data(), text.size(), 1));
    write(name + ".zst", bytes);
    fs::remove(folder_ / name);
  }
  std::string error() const {
    try {
      load_beir(folder_.string());
    } catch (const Error& error) {
      return error.what();
    }
    return "no error";
  }
  /// The error when one file holds something else.
  std::string error_with(const std::string& name, const std::string& bytes, const std::string& good) const {
    write(name, bytes);
    std::string message = error();
    write(name, good);
    return message;
  }

  fs::path folder_;
};

void expect_the_set(const BeirSet& set) {
  ASSERT_EQ(set.documents.size(), 3u);
  EXPECT_EQ(set.documents[0].full_text(), "T\none");
  EXPECT_EQ(set.documents[1].id, "2");
  EXPECT_EQ(set.documents[2].full_text(), "three");
  ASSERT_EQ(set.questions.size(), 2u);
  EXPECT_EQ(set.questions[0].text, "which?");
  EXPECT_EQ(set.questions[0].type, "t");
  EXPECT_THAT(set.questions[0].answers, ElementsAre("a", "b"));
  EXPECT_THAT(set.questions[0].gold, ElementsAre(0, 2));
  EXPECT_THAT(set.questions[0].hops, ElementsAre(2, 0));
  EXPECT_THAT(set.questions[1].gold, IsEmpty());
  EXPECT_THAT(set.questions[1].answers, IsEmpty());
}

TEST_F(BeirTest, PlainAndCompressed) {
  expect_the_set(load_beir(folder_.string()));
  for (const char* name : {"corpus.jsonl", "queries.jsonl", "qrels.tsv"}) compress(name);
  expect_the_set(load_beir(folder_.string()));
}

TEST_F(BeirTest, GradesBesideTheGold) {
  const BeirSet set = load_beir(folder_.string());
  EXPECT_THAT(set.questions[0].gold, ElementsAre(0, 2));
  EXPECT_THAT(set.questions[0].grades, ElementsAre(1, 2));
  EXPECT_THAT(set.questions[1].grades, IsEmpty());
}

TEST_F(BeirTest, JudgementsInAFolderAsPublished) {
  fs::create_directory(folder_ / "qrels");
  fs::rename(folder_ / "qrels.tsv", folder_ / "qrels/test.tsv");
  EXPECT_THAT(load_beir(folder_.string()).questions[0].gold, ElementsAre(0, 2));
}

TEST_F(BeirTest, PossiblePositives) {
  write("possible_positives.tsv", "query-id\tcorpus-id\tscore\nq2\td3\t1\n");
  EXPECT_THAT(load_beir(folder_.string()).questions[1].possible, ElementsAre(2));
  write("possible_positives.tsv", "query-id\tcorpus-id\tscore\nq2\td4\t1\n");
  EXPECT_THAT(error(), AllOf(HasSubstr("possible_positives.tsv:2"), HasSubstr("no document 'd4'")));
}

TEST_F(BeirTest, CorpusAlone) {
  fs::remove(folder_ / "queries.jsonl");
  EXPECT_EQ(load_beir_corpus(folder_.string()).documents.size(), 3u);
}

TEST_F(BeirTest, MissingAndEmptyFiles) {
  for (const char* name : {"corpus.jsonl", "queries.jsonl", "qrels.tsv"}) {
    const fs::path aside = folder_ / "aside";
    fs::rename(folder_ / name, aside);
    EXPECT_THAT(error(), AllOf(HasSubstr(std::string(name)), HasSubstr("no such file")));
    fs::rename(aside, folder_ / name);
  }
  EXPECT_THAT(error_with("corpus.jsonl", "\n", kCorpus), HasSubstr("no documents in it"));
  EXPECT_THAT(error_with("corpus.jsonl", "{\"_id\":\"d1\",\"text\":\"\"}", kCorpus),
              HasSubstr("no document has a text"));
  EXPECT_THAT(error_with("queries.jsonl", "", kQueries), HasSubstr("no questions in it"));
  EXPECT_THAT(error_with("qrels.tsv", "", kQrels), HasSubstr("no document is judged relevant"));
  EXPECT_THROW(load_beir((folder_ / "nowhere").string()), Error);
  EXPECT_EQ(error(), "no error");
}

TEST_F(BeirTest, BrokenQrelsNameFileAndLine) {
  const auto of_line = [&](const std::string& line) {
    return error_with("qrels.tsv", "query-id\tcorpus-id\tscore\nq1\td1\t1\n" + line + "\n", kQrels);
  };
  EXPECT_THAT(of_line("q1\td1"), AllOf(HasSubstr("qrels.tsv:3"), HasSubstr("2 columns instead of 3")));
  EXPECT_THAT(of_line("q1 d1 1"), HasSubstr("1 columns instead of 3"));
  EXPECT_THAT(of_line("q1\td1\t1\t1"), HasSubstr("4 columns instead of 3"));
  EXPECT_THAT(of_line("q1\td1\tyes"), HasSubstr("'yes' is no whole number"));
  EXPECT_THAT(of_line("q1\td1\t"), HasSubstr("no whole number"));
  EXPECT_THAT(of_line("\td1\t1"), HasSubstr("an empty id"));
  EXPECT_THAT(of_line("q9\td1\t1"), AllOf(HasSubstr("qrels.tsv:3"), HasSubstr("no question 'q9'")));
  EXPECT_THAT(of_line("q1\td9\t1"), HasSubstr("no document 'd9'"));
  EXPECT_THAT(error_with("qrels.tsv", "q1\td1\t1\n", kQrels), HasSubstr("header line is missing"));
}

TEST_F(BeirTest, BrokenLinesNameFileAndLine) {
  const auto of_query = [&](const std::string& line) { return error_with("queries.jsonl", kQueries + line, kQueries); };
  EXPECT_THAT(of_query("{\"_id\":\"q1\",\"text\":\"x\"}"),
              AllOf(HasSubstr("queries.jsonl:3"), HasSubstr("'q1' is there twice")));
  EXPECT_THAT(of_query("{\"_id\":\"q3\"}"), HasSubstr("\"text\" is missing"));
  EXPECT_THAT(of_query("{\"_id\":\"q3\",\"text\":\" \"}"), HasSubstr("\"text\" is empty"));
  EXPECT_THAT(of_query("{\"_id\":\"q3\",\"text\":\"x\",\"answers\":\"a\"}"), HasSubstr("\"answers\" is no array"));
  EXPECT_THAT(of_query("{\"_id\":\"q3\",\"text\":\"x\",\"answers\":[1]}"), HasSubstr("\"answers\" is no string"));
  EXPECT_THAT(of_query("{\"_id\":\"q3\",\"text\":\"x\",\"answers\":[\"\"]}"), HasSubstr("empty string"));
  EXPECT_THAT(of_query("{\"_id\":\"q3\",\"text\":\"x\",\"hops\":[\"d7\"]}"), HasSubstr("no document 'd7'"));
  const std::string twice = std::string(kCorpus) + "{\"_id\":\"d1\",\"text\":\"x\"}";
  EXPECT_THAT(error_with("corpus.jsonl", twice, kCorpus),
              AllOf(HasSubstr("corpus.jsonl:6"), HasSubstr("'d1' is there twice")));
}

TEST_F(BeirTest, RandomBytesNeverCrash) {
  const unsigned seed = std::random_device{}();
  SCOPED_TRACE("seed " + std::to_string(seed));
  std::mt19937 random(seed);
  const std::pair<const char*, std::string> files[] = {
      {"corpus.jsonl", kCorpus}, {"queries.jsonl", kQueries}, {"qrels.tsv", kQrels}};
  for (int round = 0; round < 300; ++round) {
    const auto& [name, good] = files[round % 3];
    std::string bytes = good;
    for (int i = 0; i < 2; ++i) bytes[random() % bytes.size()] = static_cast<char>(random());
    error_with(name, bytes, good);
  }
}

}  // namespace
}  // namespace msa
