// The program msa-train from outside.
#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <sys/wait.h>
#include <unistd.h>

#include <chrono>
#include <csignal>
#include <cstdlib>
#include <fstream>
#include <sstream>
#include <thread>

#include "../train_data/tiny_sets.h"

namespace msa::train {
namespace {

namespace fs = std::filesystem;
using ::testing::HasSubstr;

struct Outcome {
  int code = -1;
  std::string out, err;
};

class TrainProgram : public ::testing::Test {
 protected:
  void SetUp() override {
    msa::testing::TinyShape shape;
    shape.layers = 2;
    msa::testing::write_tiny_model(sets_.path("model"), shape);
    sets_.write_numbered_set("set", 12);
  }

  std::string recipe(const std::string& steps) const {
    sets_.write("recipe.toml", R"([model]
base = "model"
rank = 4
[data]
samples = 6
pool_tokens = 600
max_document_tokens = 100
max_sample_tokens = 300
top_k = 3
hard_negatives_per_question = 0
[[data.sets]]
folder = "set"
[run]
device = "cpu"
output = "out"
log_every = 1
steps = )" + steps + "\n");
    return sets_.path("recipe.toml");
  }

  /// `before`: words of the shell in front of the program.
  Outcome run(const std::string& before, const std::string& arguments) const {
    const std::string command = before + " '" MSA_TRAIN_PROGRAM "' " + arguments + " > '" + sets_.path("stdout") +
                                "' 2> '" + sets_.path("stderr") + "'";
    const int status = std::system(command.c_str());
    return {WIFEXITED(status) ? WEXITSTATUS(status) : -1, read("stdout"), read("stderr")};
  }

  /// Runs the recipe until stderr holds `text`, then ends it as `timeout` does: SIGTERM twice.
  Outcome stop_after(const std::string& text, const std::string& recipe_path) const {
    const pid_t child = fork();
    if (child == 0) {
      if (freopen(sets_.path("stdout").c_str(), "w", stdout) == nullptr) _exit(126);
      if (freopen(sets_.path("stderr").c_str(), "w", stderr) == nullptr) _exit(126);
      execl(MSA_TRAIN_PROGRAM, MSA_TRAIN_PROGRAM, "run", recipe_path.c_str(), nullptr);
      _exit(127);
    }
    int status = 0;
    while (read("stderr").find(text) == std::string::npos) {
      if (waitpid(child, &status, WNOHANG) == child) {
        ADD_FAILURE() << "ended before \"" << text << "\"";
        return {WIFEXITED(status) ? WEXITSTATUS(status) : -1, read("stdout"), read("stderr")};
      }
      std::this_thread::sleep_for(std::chrono::milliseconds(20));
    }
    kill(child, SIGTERM);
    kill(child, SIGTERM);
    waitpid(child, &status, 0);
    return {WIFEXITED(status) ? WEXITSTATUS(status) : -1, read("stdout"), read("stderr")};
  }

  std::string read(const std::string& name) const {
    std::ifstream in(sets_.path(name), std::ios::binary);
    std::ostringstream text;
    text << in.rdbuf();
    return text.str();
  }

  TinySets sets_;
};

TEST_F(TrainProgram, RunsARecipeAndLeavesItsFiles) {
  const Outcome outcome = run("", "run '" + recipe("3") + "'");
  EXPECT_EQ(outcome.code, 0) << outcome.err;
  EXPECT_THAT(outcome.err, HasSubstr("step 3/3"));
  EXPECT_THAT(outcome.err, HasSubstr("finished after 3 steps"));
  for (const char* file : {"metrics.jsonl", "checkpoint.safetensors", "adapter.safetensors", "adapter_config.json"}) {
    EXPECT_TRUE(fs::exists(sets_.path("out") + "/" + file)) << file;
  }
}

TEST_F(TrainProgram, SigtermSavesAndTheSameCommandGoesOn) {
  const std::string path = recipe("100000");
  const Outcome stopped = stop_after("step 1/", path);
  EXPECT_EQ(stopped.code, 1);
  EXPECT_THAT(stopped.err, HasSubstr("saved; the same command goes on"));
  const Outcome again = stop_after("resuming after step", path);
  EXPECT_EQ(again.code, 1);
  EXPECT_THAT(again.err, HasSubstr("resuming after step"));
}

TEST_F(TrainProgram, TwoProcesses) {
#ifdef MSA_MPIEXEC
  const std::string before =
      "OMPI_ALLOW_RUN_AS_ROOT=1 OMPI_ALLOW_RUN_AS_ROOT_CONFIRM=1 OMPI_MCA_rmaps_base_oversubscribe=1 "
      "OMP_NUM_THREADS=1 " MSA_MPIEXEC " -n 2";
  const Outcome outcome = run(before, "run '" + recipe("3") + "'");
  EXPECT_EQ(outcome.code, 0) << outcome.err;
  EXPECT_THAT(outcome.err, HasSubstr("finished after 3 steps"));
  std::istringstream lines(read("out/metrics.jsonl"));
  std::string line;
  int count = 0;
  while (std::getline(lines, line)) ++count;
  EXPECT_EQ(count, 3) << "rank 0 alone writes";
#else
  GTEST_SKIP() << "built without MPI (libopenmpi-dev, openmpi-bin)";
#endif
}

TEST_F(TrainProgram, MakesDataThatARunReads) {
  sets_.write_set("corpus",
                  {{"a", "Ada Lovelace",
                    "Ada Lovelace was an English mathematician and writer born in London in 1815. She "
                    "wrote the first program for the Analytical Engine of Charles Babbage in 1843. "
                    "Her notes on the machine were published in a journal of science in London. Ada "
                    "Lovelace died in London at the age of thirty-six after a long illness."},
                   {"b", "Zurich",
                    "Zurich is a city in Switzerland at the northern end of Lake Zurich. The city was "
                    "founded by the Romans and has about 440,000 inhabitants today. Zurich is a hub "
                    "for railways, roads and air traffic in central Europe. The main station of "
                    "Zurich is the largest and busiest in the whole country."},
                   {"c", "Basalt",
                    "Basalt is a volcanic rock formed from the rapid cooling of lava rich in "
                    "magnesium and iron. More than ninety percent of all volcanic rock on Earth is "
                    "basalt. Basalt lava has a low viscosity because of its low silica content. "
                    "Basalt columns are found at the Giant's Causeway in Northern Ireland."}},
                  {});
  const Outcome made = run("", "make-data '" + sets_.path("corpus") + "' '" + sets_.path("made") + "' --json");
  ASSERT_EQ(made.code, 0) << made.err;
  EXPECT_GT(nlohmann::json::parse(made.out)["questions"]["inverse_cloze"]["kept"].get<int>(), 0);
  EXPECT_NO_THROW(load_beir(sets_.path("made")));
}

TEST_F(TrainProgram, ConformanceTellsRightFromWrong) {
  const fs::path right = fs::path(MSA_TEST_DATA) / "conformance" / "train-eq5";
  EXPECT_EQ(run("", "conformance '" + right.string() + "'").code, 0);
  fs::copy(right, sets_.path("wrong"));
  auto recorded = nlohmann::json::parse(read("wrong/case.json"));
  recorded["positives"] = {0};
  sets_.write("wrong/case.json", recorded.dump());
  const Outcome wrong = run("", "conformance '" + sets_.path("wrong") + "' --json");
  EXPECT_EQ(wrong.code, 1);
  const auto report = nlohmann::json::parse(wrong.out);
  EXPECT_FALSE(report["tensors"]["aux_loss"]["ok"]);
  EXPECT_TRUE(report["tensors"]["lm_loss"]["ok"]);
}

TEST_F(TrainProgram, ErrorsSayWhatAndWhere) {
  EXPECT_EQ(run("", "").code, 2);
  EXPECT_EQ(run("", "run").code, 2);
  const Outcome missing = run("", "run /nowhere.toml");
  EXPECT_EQ(missing.code, 1);
  EXPECT_THAT(missing.err, HasSubstr("/nowhere.toml"));
  const Outcome device = run("", "conformance /nowhere --device tpu");
  EXPECT_EQ(device.code, 1);
  EXPECT_THAT(device.err, HasSubstr("tpu"));
}

}  // namespace
}  // namespace msa::train
