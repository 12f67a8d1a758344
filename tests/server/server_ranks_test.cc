// `msa serve` as a program: one process and several ranks, ended by signals, with a rank that dies.
#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <httplib.h>
#include <signal.h>
#include <sys/wait.h>
#include <unistd.h>

#include <fstream>
#include <regex>
#include <sstream>

#include "../engine/tiny_model.h"

namespace msa {
namespace {

using nlohmann::json;
using ::testing::HasSubstr;

#ifndef MSA_MPIRUN
#define MSA_MPIRUN ""
#endif

/// A server in a process group of its own, which ends with this object.
class Running {
 public:
  /// `rank`: what a shell of every rank does before the program.
  Running(const std::filesystem::path& folder, int ranks, const std::string& options, const std::string& rank = "",
          const std::string& mpirun = "")
      : log_(folder / "log") {
    std::string command = "cd " + folder.string() + " && export MSA_MODEL=tiny OMPI_ALLOW_RUN_AS_ROOT=1 " +
                          "OMPI_ALLOW_RUN_AS_ROOT_CONFIRM=1 OMPI_MCA_btl=self,vader " +
                          "OMPI_MCA_btl_vader_single_copy_mechanism=none; exec ";
    if (ranks > 1) {
      command +=
          std::string(MSA_MPIRUN) + " --oversubscribe --bind-to none " + mpirun + " -n " + std::to_string(ranks) + " ";
    }
    command += "sh -c '" + rank + "exec " MSA_PROGRAM " serve --port 0 --threads 1 --bank bank " + options +
               "' > log 2>&1 < /dev/null";
    std::filesystem::remove(log_);
    pid_ = fork();
    if (pid_ == 0) {
      setpgid(0, 0);
      execl("/bin/sh", "sh", "-c", command.c_str(), nullptr);
      _exit(127);
    }
    wait_for_address();
  }
  ~Running() { end(SIGTERM); }  // mpirun ends its ranks, which are no group of ours

  httplib::Client client() const {
    httplib::Client client("127.0.0.1", port_);
    client.set_read_timeout(60);
    return client;
  }
  /// The exit code; -1: by a signal.
  int end(int signal) {
    if (pid_ <= 0) return 0;
    kill(signal == SIGKILL ? -pid_ : pid_, signal);
    int status = 0;
    waitpid(pid_, &status, 0);
    kill(-pid_, SIGKILL);
    pid_ = -1;
    return WIFEXITED(status) ? WEXITSTATUS(status) : -1;
  }
  std::string log() const {
    std::ifstream in(log_);
    std::ostringstream text;
    text << in.rdbuf();
    return text.str();
  }

 private:
  void wait_for_address() {
    for (int i = 0; i < 1200; ++i) {
      const std::string text = log();
      std::smatch found;
      if (std::regex_search(text, found, std::regex("listening on http://127.0.0.1:([0-9]+)\n"))) {
        port_ = std::stoi(found[1]);
        return;
      }
      usleep(50'000);
    }
    ADD_FAILURE() << "the server did not come up: " << log();
  }

  std::filesystem::path log_;
  pid_t pid_ = -1;
  int port_ = 0;
};

class ServerRanks : public ::testing::Test {
 protected:
  ServerRanks() { testing::write_tiny_model(folder_.path() / "tiny"); }
  void need_mpi() const {
    if (std::string(MSA_MPIRUN).empty()) GTEST_SKIP() << "no MPI (libopenmpi-dev, openmpi-bin)";
  }

  static json documents(int first, int n) {
    json list = json::array();
    for (int i = first; i < first + n; ++i) {
      list.push_back({{"text", "Document " + std::to_string(i * 7919) + " tells of " + std::string(i % 9, 'x')},
                      {"id", std::to_string(i)}});
    }
    return {{"documents", list}};
  }
  static httplib::Result ask(httplib::Client& client) {
    const json body = {{"model", "tiny"},
                       {"max_tokens", 8},
                       {"memory", {{"trace", true}}},
                       {"messages", {{{"role", "user"}, {"content", "Who tells of it?"}}}}};
    return client.Post("/v1/chat/completions", body.dump(), "application/json");
  }

  testing::TemporaryFolder folder_;
};

TEST_F(ServerRanks, AnswerAsOneProcess) {
  need_mpi();
  if (IsSkipped()) return;
  json expected;
  for (const int ranks : {1, 2, 3}) {
    SCOPED_TRACE(ranks);
    Running server(folder_.path(), ranks, "");
    httplib::Client client = server.client();
    if (ranks == 1) {
      const auto added = client.Post("/v1/memories", documents(0, 20).dump(), "application/json");
      ASSERT_TRUE(added && added->status == 201);
    }
    const auto result = ask(client);
    ASSERT_TRUE(result && result->status == 200) << server.log();
    json reply = json::parse(result->body);
    for (json& hop : reply["memory"]["hops"]) hop.erase("ms");
    if (ranks == 1) expected = reply;
    EXPECT_EQ(reply["choices"], expected["choices"]);
    EXPECT_EQ(reply["memory"], expected["memory"]);
    // Encoded by all ranks, and seen by the next question.
    const auto more = client.Post("/v1/memories", documents(100 * ranks, 5).dump(), "application/json");
    ASSERT_TRUE(more && more->status == 201) << server.log();
    const json search = {{"query", "Who?"}, {"top_k", 1000}};
    const auto all = client.Post("/v1/memories/search", search.dump(), "application/json");
    EXPECT_EQ(json::parse(all->body)["data"].size(), 25u);
    const json added = json::parse(more->body)["added"];
    for (const json& d : added) {
      EXPECT_EQ(client.Delete("/v1/memories/" + d.dump())->status, 200);
    }
    const int code = server.end(SIGTERM);
    if (ranks == 1) {
      EXPECT_EQ(code, 0) << server.log();
    }
    EXPECT_THAT(server.log(), HasSubstr("shutting down"));
  }
}

TEST_F(ServerRanks, ALostRankIsAnErrorOrAShareThatIsMissing) {
  need_mpi();
  if (IsSkipped()) return;
  json expected;
  {
    Running server(folder_.path(), 1, "");
    httplib::Client client = server.client();
    ASSERT_EQ(client.Post("/v1/memories", documents(0, 20).dump(), "application/json")->status, 201);
    expected = json::parse(ask(client)->body);
  }
  const std::string dies = "test \"$OMPI_COMM_WORLD_RANK\" = 1 && exec " MSA_DYING_RANK " 3; ";
  {
    Running server(folder_.path(), 3, "--rank-timeout 4 --exchange host", dies, "--enable-recovery");
    httplib::Client client = server.client();
    const auto failed = ask(client);
    ASSERT_TRUE(failed);
    EXPECT_EQ(failed->status, 503) << failed->body;
    EXPECT_EQ(json::parse(failed->body)["error"]["code"], "rank_lost");
    EXPECT_EQ(client.Get("/health")->status, 200);
  }
  Running server(folder_.path(), 3, "--rank-timeout 4 --degraded", dies, "--enable-recovery");
  httplib::Client client = server.client();
  const auto first = ask(client);
  ASSERT_TRUE(first && first->status == 200) << server.log();
  const json missing = json::parse(first->body)["memory"].value("missing", json::object());
  ASSERT_FALSE(missing.empty()) << first->body;
  EXPECT_GT(missing["documents"], 0);
  EXPECT_THAT(missing["ranks"].dump(), HasSubstr("rank 1: "));
  // The others have shared out its part: nothing is missing any more.
  const auto second = ask(client);
  ASSERT_TRUE(second && second->status == 200) << server.log();
  const json answer = json::parse(second->body);
  EXPECT_FALSE(answer["memory"].contains("missing"));
  EXPECT_EQ(answer["memory"]["documents"], expected["memory"]["documents"]);
  EXPECT_EQ(answer["choices"], expected["choices"]);
}

/// What was answered with 201 is there after kill -9.
TEST_F(ServerRanks, NothingAcknowledgedIsLost) {
  size_t acknowledged = 0;
  for (int round = 0; round < 2; ++round) {
    Running server(folder_.path(), 1, "");
    httplib::Client client = server.client();
    std::thread killer([&] {
      usleep(400'000);
      server.end(SIGKILL);
    });
    for (int i = 0;; ++i) {
      const json one = {{"text", "Text " + std::to_string(i)}, {"id", std::to_string(round) + "-" + std::to_string(i)}};
      const auto added = client.Post("/v1/memories", one.dump(), "application/json");
      if (!added || added->status != 201) break;
      ++acknowledged;
    }
    killer.join();
  }
  ASSERT_GT(acknowledged, 0u);
  Running server(folder_.path(), 1, "");
  httplib::Client client = server.client();
  const size_t there = json::parse(client.Get("/health")->body)["documents"];
  EXPECT_GE(there, acknowledged);
  EXPECT_LE(there, acknowledged + 2);
}

}  // namespace
}  // namespace msa
