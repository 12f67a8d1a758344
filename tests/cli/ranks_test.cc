// The program under mpirun: one object on stdout, the same as that of one process, whatever a rank does.
#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <sys/wait.h>

#include <chrono>
#include <cstdlib>
#include <filesystem>
#include <fstream>
#include <sstream>
#include <string>

#include "../engine/tiny_model.h"

namespace msa {
namespace {

namespace fs = std::filesystem;
using nlohmann::json;
using ::testing::HasSubstr;
using ::testing::Not;

/// Of a run over several.
struct Launch {
  std::string prefix = {};   // before the program, in every rank's shell
  std::string options = {};  // of mpirun
};

struct Outcome {
  int code = -1;
  std::string out, err;
  double seconds = 0;
};

std::string read_file(const fs::path& path) {
  std::ifstream in(path, std::ios::binary);
  std::ostringstream text;
  text << in.rdbuf();
  return text.str();
}

#ifndef MSA_MPIRUN
#define MSA_MPIRUN ""
#endif

class Ranks : public ::testing::Test {
 protected:
  void SetUp() override {
    if (std::string(MSA_MPIRUN).empty()) GTEST_SKIP() << "no MPI (libopenmpi-dev, openmpi-bin)";
  }

  Ranks() {
    testing::write_tiny_model(folder_.path() / "model");
    fs::create_directories(folder_.path() / "texts");
    for (int i = 0; i < 30; ++i) {
      std::ofstream(folder_.path() / "texts" / (std::to_string(100 + i) + ".txt"))
          << "Document " << i * 7919 << " tells of " << std::string(static_cast<size_t>(i * 9 % 70), 'x') << ".";
    }
  }

  Outcome msa(int ranks, const std::string& arguments, const Launch& launch = {}) const {
    const std::string folder = folder_.path().string();
    std::string command = "cd " + folder + " && MSA_MODEL=model OMPI_ALLOW_RUN_AS_ROOT=1 ";
    command +=
        "OMPI_ALLOW_RUN_AS_ROOT_CONFIRM=1 OMPI_MCA_btl=self,vader OMPI_MCA_btl_vader_single_copy_mechanism=none ";
    if (ranks > 1) {
      command += std::string(MSA_MPIRUN) + " --oversubscribe --bind-to none " + launch.options + " -n " +
                 std::to_string(ranks) + " ";
    }
    const bool computes = !arguments.starts_with("stat") && !arguments.starts_with("rm");
    const std::string program = launch.prefix + MSA_PROGRAM + " " + arguments + (computes ? " --threads 1" : "");
    command += "sh -c '" + program + "' > out 2> err < /dev/null";
    const auto start = std::chrono::steady_clock::now();
    const int status = std::system(command.c_str());
    return {WIFEXITED(status) ? WEXITSTATUS(status) : -1, read_file(folder_.path() / "out"),
            read_file(folder_.path() / "err"),
            std::chrono::duration<double>(std::chrono::steady_clock::now() - start).count()};
  }

  json msa_json(int ranks, const std::string& arguments) const {
    const Outcome run = msa(ranks, arguments + " --json");
    EXPECT_EQ(run.code, 0) << run.err;
    json result = json::parse(run.out, nullptr, /*allow_exceptions=*/false);
    EXPECT_TRUE(result.is_object()) << run.out << run.err;
    return result;
  }

  testing::TemporaryFolder folder_;
};

/// Without the times.
json timeless(json answer) {
  answer.erase("ms");
  for (json& hop : answer["hops"]) hop.erase("ms");
  return answer;
}

TEST_F(Ranks, AddAndAnswerAsOneProcess) {
  EXPECT_EQ(msa_json(1, "add texts --bank one --first-id 1")["added"].size(), 30u);
  EXPECT_EQ(msa_json(3, "add texts --bank three --first-id 1")["added"].size(), 30u);
  const std::string ask = "ask \"Who tells of it?\" --max-tokens 8 --hops 2 --bank ";
  const json expected = timeless(msa_json(1, ask + "one"));
  EXPECT_EQ(expected["hops"].empty(), false);
  for (const int ranks : {2, 3}) {
    EXPECT_EQ(timeless(msa_json(ranks, ask + "one")), expected) << ranks;
    EXPECT_EQ(timeless(msa_json(ranks, ask + "three")), expected) << ranks << ", encoded by three";
  }
  EXPECT_EQ(timeless(msa_json(2, "route \"Who tells of it?\" --bank one")),
            timeless(msa_json(1, "route \"Who tells of it?\" --bank three")));
}

TEST_F(Ranks, NeedlesAsOneProcess) {
  const std::string niah =
      "eval niah --tasks multikey_2,single_1 --sizes 1000,2000 --document-tokens 100 --samples 6 --max-tokens 3";
  const auto report = [&](int ranks, const std::string& options) {
    json out = msa_json(ranks, niah + options);
    for (json& result : out["results"]) result["metrics"].erase("ms");
    return out;
  };
  const json expected = report(1, "");
  ASSERT_EQ(expected["results"].size(), 4u);
  EXPECT_GT(expected["results"][0]["metrics"]["routed_recall"]["value"], 0.0);
  EXPECT_EQ(report(1, " --work files"), expected);
  for (const int ranks : {2, 3, 5}) EXPECT_EQ(report(ranks, " --work files"), expected) << ranks;
  EXPECT_EQ(report(2, ""), expected) << "in the system's temporary folder";
  EXPECT_TRUE(fs::is_empty(folder_.path() / "files")) << "what lay there is removed";
  EXPECT_NE(report(1, " --seed 2"), expected) << "they tell haystacks apart";
  const Outcome failed = msa(2, niah + " --work files --tasks single_2");
  EXPECT_NE(failed.code, 0);
  EXPECT_EQ(failed.out, "");
  EXPECT_THAT(failed.err, HasSubstr("--essays"));
}

TEST_F(Ranks, ReencodeAsOneProcess) {
  msa_json(1, "add texts --bank one --first-id 1");
  testing::write_tiny_model(folder_.path() / "other", {}, /*seed=*/2);
  const std::string reencode = "reencode --bank one --model other --to ";
  EXPECT_EQ(msa_json(1, reencode + "by_one")["encoded"], 30);
  EXPECT_EQ(msa_json(3, reencode + "by_three")["encoded"], 30);
  EXPECT_EQ(msa_json(3, reencode + "by_three")["kept"], 30) << "goes on";
  EXPECT_EQ(msa_json(1, "stat --bank by_three")["segments"], 3) << "one of each rank";
  const std::string ask = "ask \"Who tells of it?\" --max-tokens 8 --hops 2 --model other --bank ";
  EXPECT_EQ(timeless(msa_json(1, ask + "by_three")), timeless(msa_json(1, ask + "by_one")));
}

TEST_F(Ranks, OneRankDoesWhatIsNotForAll) {
  const Outcome conforms = msa(2, "conformance " MSA_SOURCE_DIR "/tests/data/conformance/cosine-p8 --json");
  EXPECT_EQ(conforms.code, 0) << conforms.err;
  EXPECT_EQ(json::parse(conforms.out)["ok"], true);
  EXPECT_THAT(conforms.err, HasSubstr("of 2 ranks the first alone does this"));
  const std::string add = "add texts --bank one --first-id 1";
  EXPECT_THAT(msa(2, add).err, Not(HasSubstr("the first alone")));
  EXPECT_THAT(msa(1, "conformance " MSA_SOURCE_DIR "/tests/data/conformance/cosine-p8").err, "");
  const Outcome failed = msa(3, "route \"Who?\" --bank nowhere");
  EXPECT_NE(failed.code, 0);
  EXPECT_EQ(failed.out, "");
  EXPECT_THAT(failed.err, HasSubstr("nowhere"));
}

TEST_F(Ranks, ARankThatDiesEndsTheRun) {
  msa_json(1, "add texts --bank one --first-id 1");
  const Outcome run =
      msa(3, "route \"Who tells of it?\" --bank one", {.prefix = "test \"$OMPI_COMM_WORLD_RANK\" = 1 && exit 3; "});
  EXPECT_NE(run.code, 0);
  EXPECT_EQ(run.out, "");
  EXPECT_LT(run.seconds, 60);
}

/// Rank 1 of three is killed when message number `messages` has come: 0 holds its part, 1 begins a question, 2 and 3
/// route the two layers.
Launch killing_rank_1(int messages, const std::string& options) {
  return {"test \"$OMPI_COMM_WORLD_RANK\" = 1 && exec " MSA_DYING_RANK " " + std::to_string(messages) + "; ", options};
}

TEST_F(Ranks, TheSurvivorsOfAKilledRankAnswer) {
  msa_json(1, "add texts --bank one --first-id 1");
  const json lost = msa_json(3, "stat --bank one")["ranks"][1];
  const std::string ask = "ask \"Who tells of it?\" --max-tokens 8 --bank one --rank-timeout 8 --json";
  for (const int messages : {0, 3}) {
    SCOPED_TRACE(messages);
    const Outcome run = msa(3, ask + " --degraded", killing_rank_1(messages, "--enable-recovery"));
    const json answer = json::parse(run.out, nullptr, /*allow_exceptions=*/false);
    ASSERT_TRUE(answer.is_object() && answer.contains("missing")) << run.out << run.err;
    EXPECT_EQ(answer["missing"]["documents"], lost["documents"]);
    EXPECT_EQ(answer["missing"]["chunks"], lost["chunks"]);
    EXPECT_THAT(answer["missing"]["ranks"].dump(), HasSubstr("rank 1: "));
  }
}

TEST_F(Ranks, AKilledRankEndsTheQuestionOtherwise) {
  msa_json(1, "add texts --bank one --first-id 1");
  const std::string ask = "ask \"Who tells of it?\" --max-tokens 8 --bank one --rank-timeout 8 --exchange host --json";
  // Its exit code says nothing: it is always 0 with this option of Open MPI's mpirun.
  const Outcome recovering = msa(3, ask, killing_rank_1(3, "--enable-recovery"));
  EXPECT_EQ(recovering.out, "");
  EXPECT_THAT(recovering.err, HasSubstr("rank 1: it did not answer in time"));
  // The launcher is faster than the timeout: it ends all ranks, whatever they were told.
  const Outcome plain = msa(3, ask + " --degraded", killing_rank_1(3, ""));
  EXPECT_NE(plain.code, 0);
  EXPECT_EQ(plain.out, "");
  EXPECT_THAT(plain.err, HasSubstr("signal 9"));
}

TEST_F(Ranks, StatSaysWhichRankHoldsWhat) {
  msa_json(1, "add texts --bank one --first-id 1");
  msa_json(1, "rm 3 20 --bank one");
  const json one = msa_json(1, "stat --bank one");
  EXPECT_FALSE(one.contains("ranks"));
  json three = msa_json(3, "stat --bank one");
  ASSERT_EQ(three["ranks"].size(), 3u);
  int64_t documents = 0, chunks = 0, tokens = 0, keys = 0, content = 0;
  for (const json& rank : three["ranks"]) {
    EXPECT_GT(rank["documents"], 0);
    documents += rank["documents"].get<int64_t>();
    chunks += rank["chunks"].get<int64_t>();
    tokens += rank["tokens"].get<int64_t>();
    keys += rank["bytes"]["keys"].get<int64_t>();
    content += rank["bytes"]["content"].get<int64_t>();
  }
  EXPECT_EQ(documents, one["documents"]);
  EXPECT_EQ(chunks, one["chunks"]);
  EXPECT_EQ(tokens, one["tokens"]);
  EXPECT_EQ(keys, one["bytes"]["keys"]);
  EXPECT_EQ(content, one["bytes"]["content"]);
  three.erase("ranks");
  EXPECT_EQ(three, one);
  const Outcome text = msa(3, "stat --bank one");
  EXPECT_EQ(text.out.substr(0, text.out.find("rank 0 ")), msa(1, "stat --bank one").out);
  EXPECT_THAT(text.out, HasSubstr("rank 2 "));
}

}  // namespace
}  // namespace msa
