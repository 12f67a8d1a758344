#include "cli/progress.h"

#include <gtest/gtest.h>
#include <unistd.h>

#include <thread>

namespace msa {
namespace {

TEST(ProgressTest, Line) {
  const ProgressState state{"encode", "tok", 12345, 49380, 10};
  EXPECT_EQ(progress_line(state, 120), "encode [======                  ] 12.3k/49.4k  1.23k tok/s  0:30 left");
  EXPECT_EQ(progress_line(state, 21), "encode [======      ");
  EXPECT_EQ(progress_summary(state), "encode 12.3k in 0:10, 1.23k tok/s");
  EXPECT_EQ(progress_line({"read", "docs", 7, 0, 3.5}, 80), "read 7  2 docs/s");
  EXPECT_EQ(progress_line({"read", "docs", 0, 5, 0}, 80), "read [                        ] 0/5  0 docs/s");
  EXPECT_EQ(progress_summary({"read", "docs", 999'950, 0, 7322}), "read 1.00M in 2:02:02, 137 docs/s");
}

std::string output_of(std::chrono::milliseconds duration) {
  int ends[2];
  EXPECT_EQ(pipe(ends), 0);
  {
    ProgressBar progress("work", 10, "docs", ends[1]);
    progress.advance(4);
    std::this_thread::sleep_for(duration);
    progress.advance(6);
  }
  close(ends[1]);
  char text[256];
  const ssize_t n = read(ends[0], text, sizeof(text));
  close(ends[0]);
  return {text, static_cast<size_t>(n)};
}

TEST(ProgressTest, WithoutTerminalOneLineAtTheEndOfLongWork) {
  EXPECT_EQ(output_of(std::chrono::milliseconds(0)), "");
  EXPECT_EQ(output_of(std::chrono::milliseconds(1010)).substr(0, 16), "work 10 in 0:01,");
}

}  // namespace
}  // namespace msa
