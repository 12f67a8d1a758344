#include "comm/communicator.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <atomic>
#include <cstdlib>
#include <iostream>
#include <map>
#include <mutex>
#include <thread>

#include "collective_checks.h"
#include "comm/local_communicator.h"
#include "comm/thread_communicator.h"
#include "core/error.h"

namespace msa {
namespace {

using testing::AllOf;
using testing::HasSubstr;
using namespace std::chrono_literals;

struct Backend {
  std::string name;
  int size;
};

void PrintTo(const Backend& backend, std::ostream* out) { *out << backend.name << " of " << backend.size; }

class EveryBackend : public testing::TestWithParam<Backend> {};

TEST_P(EveryBackend, keeps_all_promises) {
  const uint32_t seed = std::random_device{}();
  SCOPED_TRACE("seed " + std::to_string(seed));
  std::cout << "seed " << seed << "\n";
  if (GetParam().name == "local") {
    LocalCommunicator comm;
    collective_checks::keeps_all_promises(comm, seed);
  } else {
    std::atomic<int> ranks = 0;
    run_ranks(GetParam().size, [&](Communicator& comm) {
      EXPECT_EQ(comm.size(), GetParam().size);
      collective_checks::keeps_all_promises(comm, seed);
      ranks += 1 << comm.rank();
    });
    EXPECT_EQ(ranks, (1 << GetParam().size) - 1);
  }
}

INSTANTIATE_TEST_SUITE_P(comm, EveryBackend,
                         testing::Values(Backend{"local", 1}, Backend{"threads", 1}, Backend{"threads", 2},
                                         Backend{"threads", 3}, Backend{"threads", 5}));

/// The message of the Error that each rank gets, by rank; "" for a rank that ends well.
std::map<int, std::string> errors_of(int size, const std::function<void(Communicator&)>& body,
                                     const CommunicatorOptions& options = {}) {
  std::map<int, std::string> errors;
  std::mutex mutex;
  const auto body_noting_errors = [&](Communicator& comm) {
    std::string error;
    try {
      body(comm);
    } catch (const Error& e) {
      error = e.what();
    }
    const std::lock_guard lock(mutex);
    errors[comm.rank()] = error;
  };
  run_ranks(size, body_noting_errors, options);
  return errors;
}

TEST(broken_groups, a_rank_that_leaves_early_is_named) {
  const auto errors = errors_of(3, [](Communicator& comm) {
    comm.barrier();
    if (comm.rank() != 1) comm.barrier();
  });
  EXPECT_EQ(errors.at(1), "");
  EXPECT_THAT(errors.at(0), AllOf(HasSubstr("rank 1 has left"), HasSubstr("rank 0 in barrier")));
  EXPECT_THAT(errors.at(2), AllOf(HasSubstr("rank 1 has left"), HasSubstr("rank 2 in barrier")));
}

TEST(broken_groups, the_cause_is_rethrown) {
  for (int culprit = 0; culprit < 3; ++culprit) {
    try {
      run_ranks(3, [&](Communicator& comm) {
        float x = 1;
        comm.all_reduce_sum(&x, 1);
        if (comm.rank() == culprit) throw Error("disk full", "rank " + std::to_string(culprit));
        comm.all_reduce_sum(&x, 1);
      });
      FAIL();
    } catch (const Error& error) {
      EXPECT_EQ(error.problem(), "disk full");
    }
  }
}

TEST(broken_groups, a_rank_that_never_comes_runs_into_the_timeout) {
  std::atomic<int> waiting = 2;
  const auto hang = [&](Communicator& comm) {
    if (comm.rank() == 2) {
      while (waiting > 0) std::this_thread::sleep_for(1ms);
      comm.barrier();  // too late
    }
    try {
      comm.broadcast(nullptr, 0, 0);
    } catch (const Error&) {
      --waiting;
      throw;
    }
  };
  const auto errors = errors_of(3, hang, {.timeout = 50ms});
  EXPECT_THAT(errors.at(0) + errors.at(1), HasSubstr("did not come within 50 ms"));
  EXPECT_THAT(errors.at(2), HasSubstr("did not come within 50 ms"));
}

TEST(broken_groups, differing_calls_are_named_on_every_rank) {
  std::vector<float> data(8);
  const std::vector<std::function<void(Communicator&)>> bodies = {
      [](Communicator& comm) { comm.rank() == 1 ? comm.barrier() : comm.broadcast(nullptr, 0, 0); },
      [&](Communicator& comm) {
        std::vector<float> mine(8);
        comm.all_reduce_sum(mine.data(), comm.rank() == 1 ? 7 : 8);
      },
      [&](Communicator& comm) {
        std::vector<float> mine(8);
        comm.broadcast(mine.data(), 32, comm.rank() == 1 ? 1 : 0);
      },
  };
  for (const auto& body : bodies) {
    for (const auto& [rank, error] : errors_of(3, body)) {
      EXPECT_THAT(error, AllOf(HasSubstr(rank == 1 ? "rank 0 called" : "rank 1 called"), HasSubstr("same options")));
    }
  }
}

TEST(broken_groups, stay_broken) {
  auto communicators = thread_communicators(2);
  communicators.pop_back();
  for (int i = 0; i < 2; ++i) EXPECT_THROW(communicators[0]->barrier(), Error);
}

TEST(broken_groups, need_a_valid_root) {
  LocalCommunicator comm;
  EXPECT_DEATH(comm.broadcast(nullptr, 0, 1), "broken invariant");
}

/// Sets both variables of the launchers for one scope; null unsets.
class Launcher {
 public:
  Launcher(const char* ompi_size, const char* pmi_size) {
    set("OMPI_COMM_WORLD_SIZE", ompi_size);
    set("PMI_SIZE", pmi_size);
  }
  ~Launcher() {
    set("OMPI_COMM_WORLD_SIZE", nullptr);
    set("PMI_SIZE", nullptr);
  }

 private:
  static void set(const char* name, const char* value) { value == nullptr ? unsetenv(name) : setenv(name, value, 1); }
};

TEST(from_environment, is_local_without_a_launcher_and_for_one_rank) {
  for (const auto& [ompi, pmi] : std::vector<std::pair<const char*, const char*>>{
           {nullptr, nullptr}, {"1", nullptr}, {nullptr, "1"}, {"1", "4"}}) {
    const Launcher launcher(ompi, pmi);
    const auto comm = communicator_from_environment();
    EXPECT_NE(dynamic_cast<LocalCommunicator*>(comm.get()), nullptr);
  }
}

TEST(from_environment, refuses_malformed_sizes) {
  for (const char* text : {"", "0", "-2", "two", "2 ", "2x", " 2", "99999999999999999999"}) {
    const Launcher launcher(nullptr, text);
    try {
      communicator_from_environment();
      FAIL() << text;
    } catch (const Error& error) {
      EXPECT_EQ(error.where(), "PMI_SIZE") << text;
    }
  }
}

#ifndef MSA_TEST_WITH_MPI
TEST(from_environment, names_the_missing_mpi) {
  const Launcher launcher("2", nullptr);
  try {
    communicator_from_environment();
    FAIL();
  } catch (const Error& error) {
    EXPECT_THAT(error.what(), AllOf(HasSubstr("built without MPI"), HasSubstr("libopenmpi-dev")));
  }
}
#endif

}  // namespace
}  // namespace msa
