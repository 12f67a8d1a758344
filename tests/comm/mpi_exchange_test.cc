// Under mpirun: messages between processes.
#include <algorithm>
#include <chrono>
#include <cstdio>
#include <cstdlib>
#include <string>

#include "comm/exchange.h"
#include "core/error.h"
#include "exchange_checks.h"
#include "mpi_program.h"

namespace msa {
namespace {

using namespace std::chrono_literals;

/// Rank 0 asks all for a message; rank 1 never sends one, rank 2 does, and the run still ends, as a success.
int lose_rank_1(Exchange& exchange, const std::string& mode) {
  Message message;
  if (exchange.rank() != 0) {
    if (exchange.receive(0, exchange_checks::soon(), message) != "") return 1;
    if (exchange.rank() == 1 && mode == "kill") std::abort();
    if (exchange.rank() == 1) mpi_program::hang();
    exchange.send({0}, message);
    return 0;
  }
  // Large enough that it goes only when the receiver takes it.
  const size_t bytes = mode == "hang-in-message" ? size_t{8} << 20 : 8;
  message.body = message.memory.tensor(DType::kI8, {static_cast<int64_t>(bytes)});
  std::fill_n(message.body.as<char>(), bytes, 'x');
  exchange.send({1, 2}, message);
  const std::string problem = exchange.receive(1, Exchange::Clock::now() + 500ms, message);
  std::fprintf(stderr, "rank 1: %s\n", problem.c_str());
  exchange.give_up(1);
  const std::string other = exchange.receive(2, exchange_checks::soon(), message);
  if (problem.empty() || !other.empty()) throw Error("rank 1: " + problem + ", rank 2: " + other, mode);
  return 0;
}

int run_mode(const std::string& mode) {
  const auto exchange = exchange_from_environment();
  if (mode != "promises") return lose_rank_1(*exchange, mode);
  exchange_checks::keeps_promises(*exchange, 1);
  return mpi_program::expectations();
}

}  // namespace
}  // namespace msa

int main(int n_arguments, char** arguments) { return msa::mpi_program::run(n_arguments, arguments, msa::run_mode); }
