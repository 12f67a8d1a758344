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

  /// In a run of `ranks`; `prefix` stands before the program, in every rank's shell.
  Outcome msa(int ranks, const std::string& arguments, const std::string& prefix = "") const {
    const std::string folder = folder_.path().string();
    std::string command = "cd " + folder + " && MSA_MODEL=model OMPI_ALLOW_RUN_AS_ROOT=1 ";
    command +=
        "OMPI_ALLOW_RUN_AS_ROOT_CONFIRM=1 OMPI_MCA_btl=self,vader OMPI_MCA_btl_vader_single_copy_mechanism=none ";
    if (ranks > 1)
      command += std::string(MSA_MPIRUN) + " --oversubscribe --bind-to none -n " + std::to_string(ranks) + " ";
    const std::string program = prefix + MSA_PROGRAM + " " + arguments + " --threads 1";
    command += "sh -c '" + program + "' > out 2> err < /dev/null";
    const auto start = std::chrono::steady_clock::now();
    const int status = std::system(command.c_str());
    return {WIFEXITED(status) ? WEXITSTATUS(status) : -1, read_file(folder_.path() / "out"),
            read_file(folder_.path() / "err"),
            std::chrono::duration<double>(std::chrono::steady_clock::now() - start).count()};
  }

  json msa_json(int ranks, const std::string& arguments, const std::string& prefix = "") const {
    const Outcome run = msa(ranks, arguments + " --json", prefix);
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

TEST_F(Ranks, OneRankDoesWhatIsNotForAll) {
  msa_json(1, "add texts --bank one --first-id 1");
  const Outcome run = msa(3, "reencode --bank one --to other --json");
  EXPECT_EQ(run.code, 0) << run.err;
  EXPECT_EQ(json::parse(run.out)["encoded"], 30);
  const Outcome failed = msa(3, "route \"Who?\" --bank nowhere");
  EXPECT_NE(failed.code, 0);
  EXPECT_EQ(failed.out, "");
  EXPECT_THAT(failed.err, HasSubstr("nowhere"));
}

TEST_F(Ranks, ARankThatDiesEndsTheRun) {
  msa_json(1, "add texts --bank one --first-id 1");
  const Outcome run = msa(3, "route \"Who tells of it?\" --bank one", "test \"$OMPI_COMM_WORLD_RANK\" = 1 && exit 3; ");
  EXPECT_NE(run.code, 0);
  EXPECT_EQ(run.out, "");
  EXPECT_LT(run.seconds, 60);
}

}  // namespace
}  // namespace msa
