#include "cli/progress.h"

#include <spdlog/fmt/fmt.h>
#include <sys/ioctl.h>
#include <unistd.h>

#include <algorithm>
#include <cmath>
#include <utility>

namespace msa {
namespace {

using namespace std::chrono_literals;
constexpr auto kQuietTime = 1s;
constexpr auto kRedrawTime = 100ms;

/// Three significant digits: 7, 999, 12.3k, 4.56M.
std::string short_number(double value) {
  constexpr const char* kUnits[] = {"", "k", "M", "G", "T"};
  size_t unit = 0;
  while (value >= 999.5 && unit + 1 < std::size(kUnits)) {
    value /= 1000;
    ++unit;
  }
  const bool is_whole = value >= 99.95 || value == std::floor(value);
  return fmt::format("{:.{}f}{}", value, is_whole ? 0 : value >= 9.995 ? 1 : 2, kUnits[unit]);
}

std::string duration(double seconds) {
  const int64_t whole = std::lround(std::min(seconds, 1e9));
  if (whole < 3600) return fmt::format("{}:{:02}", whole / 60, whole % 60);
  return fmt::format("{}:{:02}:{:02}", whole / 3600, whole / 60 % 60, whole % 60);
}

double rate(const ProgressState& state) {
  return state.seconds > 0 ? static_cast<double>(state.done) / state.seconds : 0;
}

int terminal_columns(int fd) {
  winsize size{};
  return ioctl(fd, TIOCGWINSZ, &size) == 0 && size.ws_col > 0 ? size.ws_col : 80;
}

}  // namespace

std::string progress_line(const ProgressState& state, int columns) {
  constexpr int kBarCells = 24;
  const double total = static_cast<double>(state.total);
  const double done = static_cast<double>(state.done);
  std::string line = state.label;
  if (state.total > 0) {
    const int cells = static_cast<int>(kBarCells * std::clamp(done / total, 0.0, 1.0));
    line += " [" + std::string(static_cast<size_t>(cells), '=') +
            std::string(static_cast<size_t>(kBarCells - cells), ' ') + "] " + short_number(done) + "/" +
            short_number(total);
  } else {
    line += " " + short_number(done);
  }
  line += "  " + short_number(rate(state)) + " " + state.unit + "/s";
  if (state.total > 0 && state.done > 0) line += "  " + duration(std::max(total - done, 0.0) / rate(state)) + " left";
  return line.substr(0, static_cast<size_t>(std::max(columns - 1, 1)));
}

std::string progress_summary(const ProgressState& state) {
  return state.label + " " + short_number(static_cast<double>(state.done)) + " in " + duration(state.seconds) + ", " +
         short_number(rate(state)) + " " + state.unit + "/s";
}

ProgressBar::ProgressBar(std::string label, int64_t total, std::string unit, int fd)
    : state_{std::move(label), std::move(unit), 0, total, 0},
      fd_(fd),
      is_terminal_(isatty(fd) == 1),
      next_draw_(begin_ + kQuietTime) {}

ProgressBar::~ProgressBar() { finish(); }

void ProgressBar::write(const std::string& text) const {
  // A terminal that went away must not end the work.
  [[maybe_unused]] const ssize_t n = ::write(fd_, text.data(), text.size());
}

void ProgressBar::update(int64_t done) {
  state_.done = done;
  const auto now = Clock::now();
  if (!is_terminal_ || finished_ || now < next_draw_) return;
  state_.seconds = std::chrono::duration<double>(now - begin_).count();
  write("\r" + progress_line(state_, terminal_columns(fd_)) + "\x1b[K");
  drawn_ = true;
  next_draw_ = now + kRedrawTime;
}

void ProgressBar::finish() {
  if (std::exchange(finished_, true)) return;
  const auto elapsed = Clock::now() - begin_;
  if (elapsed < kQuietTime) return;
  state_.seconds = std::chrono::duration<double>(elapsed).count();
  write((drawn_ ? "\r" : "") + progress_summary(state_) + (drawn_ ? "\x1b[K\n" : "\n"));
}

}  // namespace msa
