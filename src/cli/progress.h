// A progress bar on a terminal.
#pragma once
#include <chrono>
#include <cstdint>
#include <string>

namespace msa {

struct ProgressState {
  std::string label;
  std::string unit;  // "tok"
  int64_t done = 0;
  int64_t total = 0;  // 0: unknown, then no bar and no time left
  double seconds = 0;
};

/// "encode [=====>    ] 12.3k/45.6k  450 tok/s  1:14 left", cut to `columns`.
std::string progress_line(const ProgressState& state, int columns);
/// The line that stays: "encode 45.6k in 1:41, 450 tok/s".
std::string progress_summary(const ProgressState& state);

/// Shows itself on stderr once it has run for a second; at the end a summary line stays. Where stderr is no terminal
/// only that line is written. One thread may update it.
class ProgressBar {
 public:
  ProgressBar(std::string label, int64_t total, std::string unit, int fd = 2);
  ~ProgressBar();
  ProgressBar(const ProgressBar&) = delete;
  ProgressBar& operator=(const ProgressBar&) = delete;

  void advance(int64_t n) { update(state_.done + n); }
  void update(int64_t done);
  void set_total(int64_t total) { state_.total = total; }
  /// Ends early; the destructor does the same.
  void finish();

 private:
  using Clock = std::chrono::steady_clock;
  void write(const std::string& text) const;

  ProgressState state_;
  int fd_;
  bool is_terminal_;
  bool drawn_ = false;
  bool finished_ = false;
  Clock::time_point begin_ = Clock::now();
  Clock::time_point next_draw_;
};

}  // namespace msa
