// Serves as a rank of `msa ask` does, until so many messages have come; then it kills itself as kill -9 would.
// Usage, under mpirun, in the place of one of its ranks: dying_rank MESSAGES
#include <csignal>
#include <cstdlib>

#include "engine/shard_server.h"

namespace msa {
namespace {

class DyingExchange final : public Exchange {
 public:
  DyingExchange(Exchange& inner, int left) : inner_(inner), left_(left) {}
  int rank() const override { return inner_.rank(); }
  int size() const override { return inner_.size(); }
  void send(const std::vector<int>& to, const Message& message) override { inner_.send(to, message); }
  void give_up(int rank) override { inner_.give_up(rank); }
  std::string receive(int from, Clock::time_point deadline, Message& message) override {
    std::string problem = inner_.receive(from, deadline, message);
    if (left_-- == 0) std::raise(SIGKILL);
    return problem;
  }

 private:
  Exchange& inner_;
  int left_;
};

}  // namespace
}  // namespace msa

int main(int n_arguments, char** arguments) {
  if (n_arguments != 2) return 2;
  msa::Context context(1);
  const auto exchange = msa::exchange_from_environment();
  msa::DyingExchange dying(*exchange, std::atoi(arguments[1]));
  msa::ShardServer(context, dying).serve();
  return 0;
}
