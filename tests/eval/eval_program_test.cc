// `msa eval` from outside: the small set of tests/data/eval/towns and a model of random weights.
#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <sys/wait.h>

#include <cstdlib>
#include <filesystem>
#include <fstream>
#include <nlohmann/json.hpp>
#include <sstream>
#include <string>
#include <vector>

#include "../engine/tiny_model.h"

namespace msa {
namespace {

namespace fs = std::filesystem;
using nlohmann::json;
using ::testing::HasSubstr;

struct Outcome {
  int code = -1;
  std::string out, err;
};

std::string read_text(const fs::path& path) {
  std::ifstream in(path, std::ios::binary);
  std::ostringstream text;
  text << in.rdbuf();
  return text.str();
}

class EvalProgram : public ::testing::Test {
 protected:
  void SetUp() override {
    testing::write_tiny_model(path("model"));
    fs::copy(fs::path(MSA_SOURCE_DIR) / "tests/data/eval/towns", path("towns"));
  }

  std::string path(const std::string& name) const { return (folder_.path() / name).string(); }
  void write(const std::string& name, const std::string& text) const { std::ofstream(path(name)) << text; }

  Outcome msa(const std::vector<std::string>& arguments) const {
    std::string command = "MSA_BANK= MSA_MODEL='" + path("model") + "' '" MSA_PROGRAM "' eval";
    for (const std::string& a : arguments) command += " '" + a + "'";
    command += " > '" + path("out") + "' 2> '" + path("err") + "'";
    const int status = std::system(command.c_str());
    return {WIFEXITED(status) ? WEXITSTATUS(status) : -1, read_text(path("out")), read_text(path("err"))};
  }

  json msa_json(std::vector<std::string> arguments) const {
    arguments.push_back("--json");
    const Outcome run = msa(arguments);
    EXPECT_EQ(run.code, 0) << run.err;
    json result = json::parse(run.out, nullptr, /*allow_exceptions=*/false);
    EXPECT_TRUE(result.is_object()) << run.out << run.err;
    return result.is_object() ? result : json::object();
  }

  void expect_failure(const std::vector<std::string>& arguments, const std::string& message) const {
    const Outcome run = msa(arguments);
    EXPECT_EQ(run.code, 1) << run.out;
    EXPECT_THAT(run.err, HasSubstr(message));
    EXPECT_EQ(run.out, "");
  }

  testing::TemporaryFolder folder_;
};

TEST_F(EvalProgram, RetrievalOverAWholeCorpus) {
  const std::vector<std::string> arguments{"retrieval",  "--data", path("towns"),   "--bank",
                                           path("bank"), "--run",  path("run.trec")};
  const json first = msa_json(arguments);
  EXPECT_EQ(first["questions"], 20);
  EXPECT_EQ(first["bank"]["encoded"], 50);
  EXPECT_EQ(first["bank"]["documents"], 50);
  EXPECT_EQ(first["model_fingerprint"].get<std::string>().size(), 32u);
  EXPECT_EQ(first["metrics"]["layers"].size(), 2u);
  EXPECT_EQ(first["metrics"]["mean"]["recall@100"]["value"], 1.0);
  for (const json& metric : first["metrics"]["mean"]) {
    EXPECT_LE(metric["interval"][0], metric["value"]);
    EXPECT_GE(metric["interval"][1], metric["value"]);
  }
  const json again = msa_json(arguments);
  EXPECT_EQ(again["bank"]["encoded"], 0);
  EXPECT_EQ(again["metrics"], first["metrics"]);

  const json from_run = msa_json({"retrieval", "--data", path("towns"), "--documents-from", path("run.trec")});
  EXPECT_EQ(from_run["metrics"]["mean"], first["metrics"]["mean"]);
}

TEST_F(EvalProgram, WhatMayAnswerUnjudgedIsNotRanked) {
  msa_json({"retrieval", "--data", path("towns"), "--run", path("run.trec")});
  EXPECT_THAT(read_text(path("run.trec")), ::testing::Not(HasSubstr("q0 Q0 d1 ")));
  EXPECT_THAT(read_text(path("run.trec")), HasSubstr("q1 Q0 d1 "));
}

TEST_F(EvalProgram, QuestionsAreDrawnWithTheSeed) {
  const auto run = [&](const std::string& seed) {
    msa_json({"retrieval", "--data", path("towns"), "--limit", "5", "--seed", seed, "--run", path("run.trec")});
    return read_text(path("run.trec"));
  };
  const std::string one = run("1");
  EXPECT_EQ(std::count(one.begin(), one.end(), '\n'), 5 * 50 - (one.starts_with("q0 ") ? 1 : 0));
  EXPECT_EQ(run("1"), one);
  EXPECT_NE(run("2"), one);
}

TEST_F(EvalProgram, ADegenerateSetIsRefused) {
  expect_failure({"retrieval", "--data", path("nowhere")}, "no such folder");
  write("towns/possible_positives.tsv", "query-id\tcorpus-id\tscore\nq0\td999\t1\n");
  expect_failure({"retrieval", "--data", path("towns")}, "d999");
  fs::remove(path("towns/possible_positives.tsv"));
  write("towns/qrels.tsv", "query-id\tcorpus-id\tscore\nq0\td999\t1\n");
  expect_failure({"retrieval", "--data", path("towns")}, "d999");
  write("towns/qrels.tsv", "query-id\tcorpus-id\tscore\n");
  expect_failure({"retrieval", "--data", path("towns")}, "no document is judged relevant");
  write("towns/qrels.tsv", "query-id\tcorpus-id\tscore\nq0\td0\t99999999999\n");
  expect_failure({"retrieval", "--data", path("towns")}, "qrels.tsv:2");
  write("towns/qrels.tsv", "query-id\tcorpus-id\tscore\nq0\td0\t1\n");
  write("towns/queries.jsonl", "");
  expect_failure({"retrieval", "--data", path("towns")}, "no questions");
  write("towns/queries.jsonl", "{\"_id\": \"q0\", \"text\": \"Who?\"}\n{\"_id\": \"q0\", \"text\": \"What?\"}\n");
  expect_failure({"retrieval", "--data", path("towns")}, "q0");
}

TEST_F(EvalProgram, ABrokenRunIsRefused) {
  const auto refused = [&](const std::string& lines, const std::string& message) {
    write("run.trec", lines);
    expect_failure({"retrieval", "--data", path("towns"), "--documents-from", path("run.trec")}, message);
  };
  refused("", "no lines");
  refused("q0 Q0 d0 1 0.5\n", "run.trec:1");
  refused("q0 Q0 d0 1 0.5 x\nq0 Q0 d0 2 0.4 x\n", "run.trec:2");
  refused("q0 Q0 d0 1 nan x\n", "no number");
  refused("q99 Q0 d0 1 0.5 x\n", "q99");
  refused("q0 Q0 d99 1 0.5 x\n", "d99");
}

TEST_F(EvalProgram, AnswersInEveryMode) {
  const json report =
      msa_json({"qa", "--data", path("towns"), "--limit", "3", "--output", path("answers.jsonl"), "--max-tokens", "4"});
  EXPECT_EQ(report["questions"], 3);
  ASSERT_EQ(report["metrics"].size(), 3u);
  for (const auto& [mode, metrics] : report["metrics"].items()) {
    for (const char* share : {"exact_match", "f1", "answer_in_text", "answer_in_documents", "documents_recall"}) {
      EXPECT_GE(metrics[share]["value"], 0.0) << mode << share;
      EXPECT_LE(metrics[share]["value"], 1.0) << mode << share;
    }
    EXPECT_LE(metrics["answer_tokens"]["value"], 4.0);
  }
  EXPECT_EQ(report["metrics"]["gold"]["documents_recall"]["value"], 1.0);
  EXPECT_EQ(report["metrics"]["gold"]["answer_in_documents"]["value"], 1.0);
  EXPECT_EQ(report["metrics"]["none"]["documents"]["value"], 0.0);
  const std::string lines = read_text(path("answers.jsonl"));
  EXPECT_EQ(std::count(lines.begin(), lines.end(), '\n'), 9);
  const json line = json::parse(lines.substr(0, lines.find('\n')));
  EXPECT_TRUE(line["prediction"].is_string());
  EXPECT_TRUE(line["documents"].is_array());
  EXPECT_EQ(line["scores"].size(), 10u);
}

TEST_F(EvalProgram, ARunsDocumentsAreRead) {
  std::string lines;
  for (int q = 0; q < 20; ++q) {
    for (int d = 0; d < 6; ++d) {
      lines += "q" + std::to_string(q) + " Q0 d" + std::to_string(2 * q + 1 - d < 0 ? 49 - d : 2 * q + 1 - d) + " " +
               std::to_string(d + 1) + " " + std::to_string(10 - d) + " x\n";
    }
  }
  write("run.trec", lines);
  const auto documents = [&](const std::string& read) {
    const json report = msa_json({"qa", "--data", path("towns"), "--limit", "2", "--documents-from", path("run.trec"),
                                  "--read", read, "--max-tokens", "2"});
    EXPECT_FALSE(report.contains("bank"));
    return report["metrics"]["run"]["documents"]["value"].get<double>();
  };
  EXPECT_EQ(documents("1"), 1);
  EXPECT_EQ(documents("2"), 2);
  // Byte tokens: a document is about 200 of the model's 1,024 positions.
  EXPECT_GT(documents("fit"), 1);
  EXPECT_LT(documents("fit"), 6);
  expect_failure({"qa", "--data", path("towns"), "--modes", "run"}, "--documents-from");
  expect_failure({"qa", "--data", path("towns"), "--modes", "whole", "--limit", "1"}, "fit into the model's context");
  expect_failure({"qa", "--data", path("towns"), "--modes", "system,oracle"}, "oracle");
  expect_failure({"qa", "--data", path("towns"), "--read", "0"}, "--read");
  write("towns/queries.jsonl", "{\"_id\": \"q0\", \"text\": \"Who?\"}\n");
  write("towns/qrels.tsv", "query-id\tcorpus-id\tscore\nq0\td0\t1\n");
  expect_failure({"qa", "--data", path("towns")}, "answers");
}

/// Of eval niah, without the times.
json timeless(json report) {
  for (json& result : report["results"]) result["metrics"].erase("ms");
  return report;
}

TEST_F(EvalProgram, NeedlesOfEveryTask) {
  write("essays.txt", "It was so.  Nobody knew why!\nDid they ask? They did not.\n");
  const json report = msa_json({"niah", "--sizes", "600,1200", "--essays", path("essays.txt"), "--samples", "2",
                                "--document-tokens", "150", "--max-tokens", "3"});
  ASSERT_EQ(report["results"].size(), 16u);
  for (const json& result : report["results"]) {
    EXPECT_GE(result["bank"]["tokens"], result["tokens"]);
    EXPECT_EQ(result["samples"], 2);
    EXPECT_GE(result["metrics"]["routed_recall"]["value"], 0.0);
    EXPECT_LE(result["metrics"]["routed_recall"]["value"], 1.0);
  }
  EXPECT_EQ(report["results"][0]["task"], "single_1");
  EXPECT_EQ(report["results"][0]["depths"].size(), 2u);
  const std::vector<std::string> single{"niah", "--tasks",           "single_1", "--sizes",      "600", "--samples",
                                        "2",    "--document-tokens", "150",      "--max-tokens", "3"};
  std::vector<std::string> with_files = single;
  with_files.insert(with_files.end(), {"--work", path("work")});
  EXPECT_EQ(timeless(msa_json(with_files)), timeless(msa_json(single)));
  EXPECT_TRUE(fs::is_empty(path("work"))) << "what lay there is removed";
  expect_failure({"niah"}, "--essays");
  expect_failure({"niah", "--tasks", "single_9"}, "single_9");
  expect_failure({"niah", "--tasks", "single_1", "--sizes", "64k,32k"}, "ascending");
  expect_failure({"niah", "--tasks", "single_1", "--sizes", "12q"}, "12q");
}

TEST_F(EvalProgram, TheScaleCurveGrowsInPlaceAndGoesOn) {
  const auto arguments = [&](const std::string& sizes) {
    return std::vector<std::string>{
        "scale",       "--data",   path("towns"),  "--bank",    path("bank"), "--sizes", sizes, "--distractors",
        path("other"), "--output", path("s.json"), "--answers", "2",          "--limit", "6"};
  };
  fs::create_directory(path("other"));
  const std::string towns = read_text(path("towns/corpus.jsonl"));
  // The first line repeats a document of the set, which may be gold; the second is new.
  write("other/corpus.jsonl",
        towns.substr(0, towns.find('\n') + 1) +
            R"({"_id": "new", "text": "Rivers carry pebbles down to the plains where they rest."})");
  const json first = msa_json(arguments("3k,6k"));
  ASSERT_EQ(first["points"].size(), 2u);
  EXPECT_EQ(first["questions"], 6);
  EXPECT_EQ(first["points"][0]["relative"]["recall@16"]["value"], 1.0);
  EXPECT_LE(first["points"][0]["tokens"], 3000 * 1.05);
  EXPECT_GT(first["points"][1]["documents"], first["points"][0]["documents"]);

  const json more = msa_json(arguments("3k,6k,20k"));
  ASSERT_EQ(more["points"].size(), 3u);
  EXPECT_EQ(more["points"][0], first["points"][0]);
  EXPECT_EQ(more["points"][1], first["points"][1]);
  EXPECT_GT(more["points"][2]["tokens_of"]["synthetic"], 0);
  EXPECT_GT(more["points"][2]["tokens_of"]["set"], 0);
  EXPECT_GE(more["points"][2]["tokens"], 20000 * 0.9);

  std::vector<std::string> no_bank = arguments("3k,6k");
  std::replace(no_bank.begin(), no_bank.end(), path("bank"), path("empty"));
  EXPECT_EQ(msa_json(no_bank)["points"], more["points"]) << "all sizes have results: no bank has to grow again";
  EXPECT_TRUE(fs::is_empty(path("empty/segments")));

  expect_failure(arguments("3k,10k"), "tokens already");
  std::vector<std::string> other_seed = arguments("3k,6k");
  other_seed.insert(other_seed.end(), {"--seed", "2"});
  expect_failure(other_seed, "belong to another");
  expect_failure({"scale", "--data", path("towns"), "--sizes", "20"}, "fit into 20 tokens");
}

TEST_F(EvalProgram, BadUsage) {
  EXPECT_EQ(msa({}).code, 2);
  EXPECT_EQ(msa({"retrieval"}).code, 2);
  EXPECT_EQ(msa({"retrieval", "--data", path("towns"), "--limit", "0"}).code, 2);
  EXPECT_EQ(msa({"qa", "--data", path("towns"), "--judge", "http://127.0.0.1:9/v1"}).code, 2);
  expect_failure({"qa", "--data", path("towns"), "--judge", "nowhere", "--judge-model", "m"}, "no address");
}

}  // namespace
}  // namespace msa
