#include "core/interrupt.h"

#include <gtest/gtest.h>
#include <unistd.h>

#include <csignal>

namespace msa {
namespace {

TEST(InterruptTest, OnlyASecondCtrlCKills) {
  EXPECT_EXIT(
      {
        install_interrupt_handler();
        if (interrupted()) _exit(1);
        raise(SIGTERM);
        if (!interrupted()) _exit(2);
        raise(SIGTERM);
        raise(SIGINT);
      },
      testing::KilledBySignal(SIGINT), "");
}

TEST(InterruptTest, ATerminationSentTwiceLetsTheWorkEnd) {
  EXPECT_EXIT(
      {
        install_interrupt_handler();
        raise(SIGTERM);
        raise(SIGTERM);
        _exit(interrupted() ? 7 : 1);
      },
      testing::ExitedWithCode(7), "");
}

}  // namespace
}  // namespace msa
