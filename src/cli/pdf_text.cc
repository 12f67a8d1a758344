#include "cli/pdf_text.h"

#include <fcntl.h>
#include <poll.h>
#include <signal.h>
#include <spawn.h>
#include <sys/wait.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <cstring>
#include <utility>

#include "core/error.h"
#include "io/file_reader.h"

extern char** environ;  // NOLINT(readability-redundant-declaration): POSIX asks the program to declare it

namespace msa {
namespace {

using Clock = std::chrono::steady_clock;

struct Pipe {
  Pipe() {
    int ends[2];
    if (pipe2(ends, O_CLOEXEC) != 0) throw Error(std::string("no pipe: ") + std::strerror(errno), "pdftotext");
    read_end = FileDescriptor(ends[0]);
    write_end = FileDescriptor(ends[1]);
  }
  FileDescriptor read_end;
  FileDescriptor write_end;
};

/// A running program whose two outputs we read. Its own process group, so that Ctrl-C reaches only us.
class Child {
 public:
  Child(const std::string& program, const std::string& path) {
    // A path that begins with '-' would be taken for an option.
    std::string file = path.starts_with('-') ? "./" + path : path;
    std::string name = program;
    std::string arguments[] = {"-nopgbrk", "-enc", "UTF-8"};
    std::string to_stdout = "-";
    char* argv[] = {
        name.data(), arguments[0].data(), arguments[1].data(), arguments[2].data(), file.data(), to_stdout.data(),
        nullptr};
    posix_spawn_file_actions_t actions;
    posix_spawn_file_actions_init(&actions);
    posix_spawn_file_actions_addopen(&actions, 0, "/dev/null", O_RDONLY, 0);
    posix_spawn_file_actions_adddup2(&actions, out_.write_end.get(), 1);
    posix_spawn_file_actions_adddup2(&actions, err_.write_end.get(), 2);
    posix_spawnattr_t attributes;
    posix_spawnattr_init(&attributes);
    posix_spawnattr_setflags(&attributes, POSIX_SPAWN_SETPGROUP);
    posix_spawnattr_setpgroup(&attributes, 0);
    const int code = posix_spawnp(&pid_, program.c_str(), &actions, &attributes, argv, environ);
    posix_spawnattr_destroy(&attributes);
    posix_spawn_file_actions_destroy(&actions);
    if (code != 0) {
      pid_ = -1;
      throw Error(code == ENOENT ? program + " is needed for PDF files and is not installed"
                                 : program + " cannot be started: " + std::strerror(code),
                  path, "apt-get install poppler-utils");
    }
    out_.write_end.reset();
    err_.write_end.reset();
  }
  ~Child() {
    if (pid_ > 0) {
      kill(-pid_, SIGKILL);
      wait();
    }
  }
  Child(const Child&) = delete;
  Child& operator=(const Child&) = delete;

  int out() const { return out_.read_end.get(); }
  int err() const { return err_.read_end.get(); }
  int wait() {
    int status = 0;
    while (waitpid(pid_, &status, 0) < 0 && errno == EINTR) {
    }
    pid_ = -1;
    return status;
  }

 private:
  Pipe out_;
  Pipe err_;
  pid_t pid_ = -1;
};

/// Reads what is ready; false at the end of the pipe.
bool take(pollfd& ready, std::string& bytes, const std::string& where) {
  if (ready.fd < 0 || ready.revents == 0) return ready.fd >= 0;
  char block[65536];
  const ptrdiff_t n = read_some(ready.fd, block, sizeof(block), nullptr, where);
  if (n > 0) {
    bytes.append(block, static_cast<size_t>(n));
  } else {
    ready.fd = -1;
  }
  return n > 0;
}

/// Where poppler says why it gives up.
std::string last_line(std::string text) {
  text.erase(text.find_last_not_of(" \n") + 1);
  const size_t end = text.rfind('\n');
  return text.substr(end == std::string::npos ? 0 : end + 1, 200);
}

}  // namespace

std::optional<std::string> pdf_to_text(const std::string& path, const PdfOptions& options) {
  constexpr int kStopCheckMs = 100;
  constexpr size_t kMaxMessageBytes = 1 << 20;
  Child child(options.program, path);
  std::string text;
  std::string message;
  const auto deadline = Clock::now() + options.time_limit;
  pollfd ready[2] = {{child.out(), POLLIN, 0}, {child.err(), POLLIN, 0}};
  for (;;) {
    if (options.stop && options.stop()) return std::nullopt;
    if (Clock::now() >= deadline) {
      throw Error(options.program + " did not end within " + std::to_string(options.time_limit.count() / 1000) + " s",
                  path, "convert the file to text by hand and add that");
    }
    const int n_ready = poll(ready, 2, kStopCheckMs);
    if (n_ready <= 0) continue;
    const bool more_text = take(ready[0], text, path);
    const bool more_message = take(ready[1], message, path);
    if (!more_text && !more_message) break;
    if (message.size() > kMaxMessageBytes) message.resize(kMaxMessageBytes);
    if (static_cast<int64_t>(text.size()) > options.max_text_bytes) {
      throw Error("more than " + std::to_string(options.max_text_bytes >> 20) + " MiB of text", path, "split the file");
    }
  }
  const int status = child.wait();
  if (!WIFEXITED(status) || WEXITSTATUS(status) != 0) {
    throw Error(options.program + " failed" + (message.empty() ? "" : ": " + last_line(message)), path,
                "check that it is a PDF file without a password");
  }
  return text;
}

}  // namespace msa
