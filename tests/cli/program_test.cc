// The program msa from outside: arguments in, stdout, stderr and exit code out.
#include <fmt/format.h>
#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <sys/wait.h>

#include <cstdlib>
#include <filesystem>
#include <fstream>
#include <map>
#include <set>
#include <sstream>
#include <string>
#include <vector>

#include "../engine/tiny_model.h"

namespace msa {
namespace {

namespace fs = std::filesystem;
using nlohmann::json;
using ::testing::AllOf;
using ::testing::Gt;
using ::testing::HasSubstr;
using ::testing::Lt;
using ::testing::StartsWith;

struct Outcome {
  int code = -1;
  std::string out, err;
};

std::string quoted(const std::string& argument) {
  std::string q = "'";
  for (const char c : argument) q += c == '\'' ? std::string("'\\''") : std::string(1, c);
  return q + "'";
}

std::string read_file(const fs::path& path) {
  std::ifstream in(path, std::ios::binary);
  std::ostringstream text;
  text << in.rdbuf();
  return text.str();
}

class Program : public ::testing::Test {
 protected:
  void SetUp() override {
    testing::write_tiny_model(path("model"));
    fs::create_directories(path("texts"));
    write("texts/ada.txt", "Ada Lovelace wrote the first program for the Analytical Engine.");
    write("texts/zurich.md", "# Zurich\n\nZurich lies on a lake.");
    write("texts/bees.html", "<html><body><p>Bees dance to point to flowers.</p></body></html>");
  }

  std::string path(const std::string& name) const { return (folder_.path() / name).string(); }
  void write(const std::string& name, const std::string& text) const { std::ofstream(path(name)) << text; }

  Outcome msa(const std::vector<std::string>& arguments, const std::string& input = "") const {
    std::string command = "MSA_MODEL=" + quoted(path("model")) + " MSA_BANK=" + quoted(path("bank"));
    command += std::string(" ") + quoted(MSA_PROGRAM);
    for (const std::string& a : arguments) command += " " + quoted(a);
    if (ids_from_1_ && !arguments.empty() && arguments.front() == "add") command += " --first-id 1";
    write("stdin", input);
    command += " < " + quoted(path("stdin")) + " > " + quoted(path("out")) + " 2> " + quoted(path("err"));
    const int status = std::system(command.c_str());
    return {WIFEXITED(status) ? WEXITSTATUS(status) : -1, read_file(path("out")), read_file(path("err"))};
  }

  /// Runs with --json; stdout must be one object and nothing else.
  json msa_json(std::vector<std::string> arguments, const std::string& input = "") const {
    arguments.push_back("--json");
    const Outcome run = msa(arguments, input);
    EXPECT_EQ(run.code, 0) << run.err;
    json result = json::parse(run.out, nullptr, /*allow_exceptions=*/false);
    EXPECT_TRUE(result.is_object()) << run.out;
    return result.is_object() ? result : json::object();
  }

  void expect_failure(const std::vector<std::string>& arguments, const std::string& message) const {
    const Outcome run = msa(arguments);
    EXPECT_EQ(run.code, 1) << run.out;
    EXPECT_THAT(run.err, HasSubstr(message));
    EXPECT_EQ(run.out, "");
  }

  testing::TemporaryFolder folder_;
  bool ids_from_1_ = true;  // of documents that are added
};

TEST_F(Program, FromDocumentsToACitedAnswer) {
  const json added = msa_json({"add", path("texts"), "--meta", "source=test", "--namespace", "n"});
  EXPECT_EQ(added["added"], json({1, 2, 3}));
  EXPECT_EQ(added["skipped"], 0);

  const json listed = msa_json({"ls"});
  ASSERT_EQ(listed["documents"].size(), 3u);
  EXPECT_EQ(listed["documents"][0]["id"], 1);
  EXPECT_THAT(listed["documents"][0]["external_id"].get<std::string>(), HasSubstr("ada.txt"));

  const json shown = msa_json({"show", "1"});
  EXPECT_THAT(shown.dump(), AllOf(HasSubstr("Analytical Engine"), HasSubstr("source")));

  const json routed = msa_json({"route", "Who wrote it?", "--top-k", "2"});
  ASSERT_EQ(routed["documents"].size(), 2u);
  const json& best = routed["documents"][0];
  EXPECT_GE(best["score"].get<float>(), routed["documents"][1]["score"].get<float>());
  EXPECT_EQ(best["layers"].size(), 2u);
  EXPECT_TRUE(best["layers"].contains("3"));

  const json answer = msa_json({"ask", "Who wrote it?", "--max-tokens", "8"});
  EXPECT_TRUE(answer["answer"].is_string());
  ASSERT_FALSE(answer["hops"].empty());
  EXPECT_EQ(answer["hops"][0]["routed"][0]["id"], best["id"]);
  for (const json& d : answer["documents"]) EXPECT_FALSE(d["text"].get<std::string>().empty());

  EXPECT_EQ(msa({"stat"}).code, 0);
  EXPECT_EQ(msa({"verify"}).code, 0);
}

TEST_F(Program, ARemovedDocumentIsGone) {
  msa_json({"add", path("texts")});
  EXPECT_EQ(msa({"rm", "2"}).code, 0);
  for (const json& d : msa_json({"route", "Where is Zurich?", "--top-k", "10"})["documents"]) EXPECT_NE(d["id"], 2);
  expect_failure({"show", "2"}, "2");
  expect_failure({"rm", "2"}, "2");
}

TEST_F(Program, WhatIsThereIsNotEncodedAgain) {
  msa_json({"add", path("texts")});
  write("texts/new.txt", "A new text.");
  const json again = msa_json({"add", path("texts")});
  EXPECT_EQ(again["added"], json({4}));
  EXPECT_EQ(again["unchanged"], 3);
  write("texts/ada.txt", "Another text.");
  expect_failure({"add", path("texts")}, "another text under this external id");
}

TEST_F(Program, ReplacesWhatChangedAndReinstatesWhatCameBack) {
  msa_json({"add", path("texts")});
  write("texts/ada.txt", "Another text.");
  const json replaced = msa_json({"add", path("texts"), "--replace"});
  EXPECT_EQ(replaced["added"], json({4}));
  EXPECT_EQ(replaced["replaced"], json({1}));
  EXPECT_EQ(replaced["unchanged"], 2);
  EXPECT_EQ(msa_json({"show", "4"})["version"], 2);
  EXPECT_EQ(msa({"rm", "3"}).code, 0);
  const json again = msa_json({"add", path("texts"), "--tag", "x", "--user", "u", "--time", "2026-01-31", "--replace"});
  EXPECT_EQ(again["added"], json::array());
  EXPECT_EQ(again["tokens"], 0) << "the same text is not encoded twice";
  EXPECT_EQ(again["reinstated"].size(), 3u) << "two have other metadata, one is back";
  EXPECT_EQ(msa_json({"show", "3"})["metadata"], json({{"user", "u"}, {"tags", {"x"}}, {"time", "2026-01-31"}}));
  write("texts/ada.txt", std::string(900, 'a') + " " + std::string(900, 'b'));
  EXPECT_EQ(msa_json({"add", path("texts"), "--replace", "--max-tokens", "600"})["replaced"], json({4}));
  write("texts/ada.txt", "Short again.");
  msa_json({"add", path("texts"), "--replace", "--max-tokens", "600"});
  EXPECT_EQ(msa_json({"ls"})["documents"].size(), 3u) << "no part of the long version is left";
}

TEST_F(Program, FiltersAndAnswersAsOfATime) {
  msa_json({"add", path("texts/ada.txt"), "--namespace", "a", "--meta", "year=1843"});
  msa_json({"add", path("texts/zurich.md"), "--namespace", "b", "--tag", "city"});
  const std::string created = msa_json({"show", "2"})["created"];
  EXPECT_EQ(msa({"rm", "1"}).code, 0);
  const auto routed = [&](std::vector<std::string> more) {
    more.insert(more.begin(), {"route", "Who?"});
    const json result = msa_json(more);
    json ids = json::array();
    for (const json& d : result["documents"]) ids.push_back(d["id"]);
    std::sort(ids.begin(), ids.end());
    return ids;
  };
  EXPECT_EQ(routed({}), json({2}));
  EXPECT_EQ(routed({"--as-of", created}), json({1, 2}));
  EXPECT_EQ(routed({"--as-of", created, "--filter", "year < 1900"}), json({1}));
  EXPECT_EQ(routed({"--filter", "namespace = 'b' and tag in ('city')"}), json({2}));
  EXPECT_EQ(routed({"--filter", "namespace = 'a'"}), json::array());
  expect_failure({"route", "Who?", "--filter", "namespace = 'a' or"}, "filter");
  expect_failure({"ask", "Who?", "--as-of", "yesterday"}, "is not a time");
  const json compacted = msa_json({"compact"});
  EXPECT_EQ(compacted["documents_forgotten"], 1);
  expect_failure({"route", "Who?", "--as-of", created}, "forgotten");
}

TEST_F(Program, RemovalAtOncePrintsAReceipt) {
  msa_json({"add", path("texts")});
  const json receipt = msa_json({"rm", "1", "--now"})["receipt"];
  EXPECT_EQ(receipt["documents"][0]["id"], 1);
  EXPECT_EQ(receipt["documents"][0]["hash"].get<std::string>().size(), 32u);
  EXPECT_NE(receipt["fingerprint_before"], receipt["fingerprint_after"]);
  EXPECT_EQ(receipt["documents_forgotten"], 1);
  EXPECT_EQ(receipt["time"].get<std::string>().size(), 20u);
  const std::string grep = "grep -rq 'Analytical Engine' " + quoted(path("bank"));
  EXPECT_NE(std::system(grep.c_str()), 0) << "no file of the bank holds the text";
  EXPECT_EQ(std::system(("grep -rq 'Zurich lies' " + quoted(path("bank"))).c_str()), 0) << "grep finds what is there";
}

TEST_F(Program, NewBanksBeginTheirIdsApart) {
  ids_from_1_ = false;
  std::set<int64_t> first_ids;
  for (const char* bank : {"a", "b", "c"}) {
    const json added = msa_json({"add", path("texts"), "--bank", path(bank)})["added"];
    ASSERT_EQ(added.size(), 3u);
    const auto first = added[0].get<int64_t>();
    EXPECT_TRUE(first >= 1 && first <= 5000) << first;
    EXPECT_EQ(added[2].get<int64_t>(), first + 2);
    write("later.txt", "A later text.");
    EXPECT_EQ(msa_json({"add", path("later.txt"), "--bank", path(bank)})["added"], json({first + 3})) << "goes on";
    first_ids.insert(first);
  }
  EXPECT_GT(first_ids.size(), 1u) << "all three alike: by chance once in 25 million runs";
}

TEST_F(Program, ExportsAndMerges) {
  msa_json({"add", path("texts/ada.txt"), path("texts/zurich.md")});
  msa_json({"add", path("texts/bees.html"), "--bank", path("second")});
  EXPECT_EQ(msa_json({"export", path("bank.msa")})["documents"], 2);
  EXPECT_EQ(msa_json({"import", path("bank.msa"), "--bank", path("copy")})["kept"], json({1, 2}));
  EXPECT_EQ(msa_json({"route", "Who?", "--bank", path("copy")})["documents"], msa_json({"route", "Who?"})["documents"]);
  const json merged = msa_json({"import", path("bank.msa"), "--bank", path("second")});
  EXPECT_EQ(merged["kept"], json({2}));
  EXPECT_EQ(merged["reencoded"], json::parse(R"([{"from": 1, "to": 3}])"));
  EXPECT_EQ(msa_json({"import", path("bank.msa"), "--bank", path("second")})["unchanged"], 2);
  EXPECT_EQ(msa({"verify", "--bank", path("second")}).code, 0);
  testing::write_tiny_model(path("other"), {}, /*seed=*/2);
  const json other = msa_json({"reencode", "--to", path("third"), "--model", path("other")});
  EXPECT_EQ(other["encoded"], 2);
  EXPECT_EQ(msa_json({"reencode", "--to", path("third"), "--model", path("other")})["kept"], 2) << "goes on";
  EXPECT_EQ(msa_json({"route", "Who?", "--bank", path("third"), "--model", path("other")})["documents"].size(), 2u);
  expect_failure({"import", path("bank.msa"), "--bank", path("third")}, "the bank belongs to model");
  expect_failure({"import", path("texts/ada.txt"), "--bank", path("fourth")}, "not an export");
}

TEST_F(Program, VerifyRepairsFromTheText) {
  msa_json({"add", path("texts")});
  const json before = msa_json({"route", "Who?"})["documents"];
  const std::string file = path("bank/segments/1/segment.msa");
  std::fstream damage(file, std::ios::in | std::ios::out | std::ios::binary);
  damage.seekp(-9, std::ios::end).put('\x55').put('\x55');
  damage.close();
  EXPECT_EQ(msa({"verify"}).code, 1);
  const json repaired = msa_json({"verify", "--repair"});
  EXPECT_TRUE(repaired["ok"]);
  EXPECT_FALSE(repaired["reencoded"].empty());
  EXPECT_EQ(msa_json({"route", "Who?"})["documents"], before);
  fs::remove_all(path("bank/segments/2"));
  EXPECT_EQ(msa_json({"verify", "--repair"})["reencoded"].size(), 3u) << "a missing segment comes back whole";
  EXPECT_EQ(msa_json({"route", "Who?"})["documents"], before);
}

TEST_F(Program, MeasuresABankAndLeavesNothing) {
  fs::create_directories(path("place"));
  const json bank = msa_json({"bench", "bank", "--documents", "500", "--folder", path("place")})["bank"];
  EXPECT_EQ(bank["documents"], 10756) << "500, 256 one by one, 5 times 2,000";
  EXPECT_EQ(bank["bytes_per_chunk"]["law"], 192);
  EXPECT_GT(bank["bytes_per_chunk"]["segments"], 192);
  EXPECT_LT(bank["segments"], 40);
  EXPECT_TRUE(fs::is_empty(path("place")));
}

TEST_F(Program, StdinIsADocument) {
  const json added = msa_json({"add", "-", "--id", "note"}, "A text from a pipe.");
  EXPECT_EQ(added["added"], json({1}));
  EXPECT_EQ(msa_json({"ls"})["documents"][0]["external_id"], "note");
}

TEST_F(Program, LongDocumentsAreSplitAndTheOutputSaysSo) {
  std::string text;
  for (int i = 0; i < 40; ++i) text += "Sentence number " + std::to_string(i) + " stands here. ";
  write("long.txt", text);
  const Outcome run = msa({"add", path("long.txt"), "--max-tokens", "200", "--overlap", "20"});
  EXPECT_EQ(run.code, 0) << run.err;
  EXPECT_THAT(run.err, HasSubstr("split into"));
  EXPECT_GT(msa_json({"ls"})["documents"].size(), 4u);
  expect_failure({"add", path("long.txt"), "--max-tokens", "100000"}, "model's context");
}

TEST_F(Program, SampledAnswersRepeatWithTheirSeed) {
  msa_json({"add", path("texts")});
  const auto ask = [&](const char* seed) {
    return msa_json({"ask", "Who?", "--max-tokens", "8", "--temperature", "1.2", "--top-p", "0.9", "--seed", seed});
  };
  EXPECT_EQ(ask("5")["answer"], ask("5")["answer"]);
  EXPECT_EQ(ask("5")["seed"], 5);
}

TEST_F(Program, SaysWhichCandidatesWereReadAndHowTheyWereJudged) {
  msa_json({"add", path("texts")});
  std::vector<std::string> ask{"ask", "Who wrote it?", "--max-tokens", "4", "--hops", "1", "--rerank", "3"};
  const json answer = msa_json(ask);
  const json& read = answer["hops"][0]["read"];
  ASSERT_EQ(read.size(), 3u) << "the tiny model fetched nothing: give it another question";
  std::map<int64_t, double> relevance;
  for (const json& c : read) {
    EXPECT_THAT(c["prior"].get<double>(), AllOf(Gt(0), Lt(1)));
    relevance[c["id"]] = c["relevance"];
    EXPECT_THAT(relevance[c["id"]], AllOf(Gt(0), Lt(1)));
  }
  EXPECT_EQ(relevance.size(), 3u);
  ASSERT_FALSE(answer["documents"].empty());
  const std::string printed = msa(ask).out;
  for (const json& d : answer["documents"]) {
    ASSERT_TRUE(d.contains("relevance")) << d;
    EXPECT_EQ(d["relevance"], relevance.at(d["id"]));
    EXPECT_THAT(printed, HasSubstr(fmt::format(" (relevance {:.2f}): ", d["relevance"].get<double>())));
  }
  std::vector<std::string> strict = ask;
  strict.insert(strict.end(), {"--min-relevance", "1"});
  EXPECT_EQ(msa_json(strict)["stop_reason"], "not_found");
  EXPECT_THAT(msa(strict).out, StartsWith("Nothing in the memory answers this."));
  ask.back() = "0";
  EXPECT_EQ(msa_json(ask)["hops"][0]["read"], json::array());
  ask.back() = "1025";
  EXPECT_EQ(msa(ask).code, 2);
}

TEST_F(Program, TracesEveryHop) {
  msa_json({"add", path("texts")});
  const Outcome run = msa({"ask", "Who?", "--max-tokens", "4", "--trace", "--hops", "1"});
  EXPECT_EQ(run.code, 0);
  EXPECT_THAT(run.err, AllOf(HasSubstr("hop 1"), HasSubstr("routed"), HasSubstr("end ")));
}

TEST_F(Program, BadInputIsOneClearError) {
  expect_failure({"ask", "Who?"}, "there is no memory bank here");
  expect_failure({"add", path("nowhere.txt")}, "nowhere.txt");
  expect_failure({"add", path("texts"), "--model", path("no-model")}, "no such model directory");
  write("binary.txt", std::string("\x7f"
                                  "ELF\0\1\2\3\0\0\0\xff\xfe",
                                  14));
  expect_failure({"add", path("binary.txt")}, "binary.txt");
  msa_json({"add", path("texts")});
  expect_failure({"ask", "  "}, "the question is empty");
  expect_failure({"route", ""}, "the question is empty");
  expect_failure({"ask", "Who?", "--temperature", "-1"}, "temperature");
  expect_failure({"show", "99"}, "99");
}

TEST_F(Program, AnotherModelsBankIsRefusedWithBothFingerprints) {
  msa_json({"add", path("texts")});
  testing::write_tiny_model(path("other"), {}, /*seed=*/2);
  const std::string before = msa({"ls"}).out;
  expect_failure({"ask", "Who?", "--model", path("other")}, "the bank belongs to model");
  expect_failure({"add", path("texts"), "--model", path("other")}, "the bank belongs to model");
  EXPECT_EQ(msa({"ls"}).out, before);
}

TEST_F(Program, BadUsageIsExitCodeTwo) {
  for (const std::vector<std::string>& arguments :
       std::vector<std::vector<std::string>>{{}, {"nothing"}, {"ask"}, {"ask", "a", "--hops", "many"}, {"rm", "x"}}) {
    EXPECT_EQ(msa(arguments).code, 2);
  }
}

TEST_F(Program, EveryCommandHasHelp) {
  EXPECT_EQ(msa({"--version"}).code, 0);
  EXPECT_EQ(msa({"--help"}).code, 0);
  for (const char* command : {"add", "rm", "ls", "show", "stat", "verify", "compact", "export", "import", "reencode",
                              "ask", "route", "convert", "conformance", "bench"}) {
    const Outcome run = msa({command, "--help"});
    EXPECT_EQ(run.code, 0) << command;
    EXPECT_THAT(run.out, HasSubstr("--")) << command;
  }
}

TEST_F(Program, AConvertedModelRoutesAlike) {
  EXPECT_EQ(msa({"convert", path("model"), path("converted"), "--dtype", "f32"}).code, 0);
  const auto routed = [&](const std::string& model, const std::string& bank) {
    msa_json({"add", path("texts"), "--model", path(model), "--bank", path(bank)});
    return msa_json({"route", "Who?", "--model", path(model), "--bank", path(bank)})["documents"];
  };
  EXPECT_EQ(routed("model", "bank-a"), routed("converted", "bank-b"));
  expect_failure({"convert", path("model"), path("converted")}, "not empty");
}

TEST_F(Program, ConformanceTellsRightFromWrong) {
  const fs::path right = fs::path(MSA_TEST_DATA) / "conformance" / "cosine-p8";
  EXPECT_TRUE(msa_json({"conformance", right.string()})["ok"]);
  fs::copy(right, path("wrong"));
  json recorded = json::parse(read_file(path("wrong/case.json")));
  std::swap(recorded["question"][0], recorded["question"][1]);
  write("wrong/case.json", recorded.dump());
  const Outcome run = msa({"conformance", path("wrong"), "--json"});
  EXPECT_EQ(run.code, 1);
  const json report = json::parse(run.out);
  EXPECT_FALSE(report["ok"]);
  EXPECT_TRUE(report["tensors"]["stage1.last_hidden"]["ok"]);
  EXPECT_FALSE(report["tensors"]["stage2.logits"]["ok"]);
}

}  // namespace
}  // namespace msa
