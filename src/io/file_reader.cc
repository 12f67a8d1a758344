#include "io/file_reader.h"

#include <fcntl.h>
#include <sys/stat.h>
#include <unistd.h>
#include <zstd.h>

#include <cerrno>
#include <cstring>
#include <utility>
#include <vector>

#include "core/error.h"

namespace msa {

FileDescriptor& FileDescriptor::operator=(FileDescriptor&& other) noexcept {
  if (this != &other) {
    reset();
    fd_ = other.release();
  }
  return *this;
}

int FileDescriptor::release() { return std::exchange(fd_, -1); }

void FileDescriptor::reset() {
  if (fd_ >= 0) close(fd_);
  fd_ = -1;
}

FileDescriptor open_for_reading(const std::string& path) {
  FileDescriptor fd(open(path.c_str(), O_RDONLY | O_CLOEXEC));
  if (fd.get() < 0) {
    const int code = errno;
    throw Error(code == ENOENT ? "no such file" : std::string("cannot be read: ") + std::strerror(code), path,
                code == EACCES ? "give yourself the permission to read it" : "check the path");
  }
  return fd;
}

ptrdiff_t read_some(int fd, char* buffer, size_t bytes, const std::function<bool()>& stop, const std::string& where) {
  for (;;) {
    if (stop && stop()) return -1;
    const ptrdiff_t n = read(fd, buffer, bytes);
    if (n >= 0) return n;
    if (errno != EINTR) throw Error(std::string("cannot be read: ") + std::strerror(errno), where);
  }
}

bool read_all(int fd, int64_t max_bytes, const std::function<bool()>& stop, const std::string& where,
              std::string& bytes) {
  const std::string fix = "split the file, or give large collections as .jsonl";
  const std::string too_large = "larger than " + std::to_string(max_bytes >> 20) + " MiB";
  struct stat status {};
  if (fstat(fd, &status) == 0 && S_ISREG(status.st_mode)) {
    if (status.st_size > max_bytes) throw Error(too_large, where, fix);
    bytes.reserve(static_cast<size_t>(status.st_size));
  }
  std::vector<char> block(size_t{256} << 10);
  for (;;) {
    const ptrdiff_t n = read_some(fd, block.data(), block.size(), stop, where);
    if (n <= 0) return n == 0;
    bytes.append(block.data(), static_cast<size_t>(n));
    if (static_cast<int64_t>(bytes.size()) > max_bytes) throw Error(too_large, where, fix);
  }
}

struct LineReader::Impl {
  struct FreeStream {
    void operator()(ZSTD_DStream* stream) const { ZSTD_freeDStream(stream); }
  };

  std::string path;
  int64_t max_line_bytes;
  FileDescriptor fd;
  std::unique_ptr<ZSTD_DStream, FreeStream> stream;                // null for a plain file
  std::vector<char> block = std::vector<char>(size_t{256} << 10);  // as the file has it
  ZSTD_inBuffer compressed{nullptr, 0, 0};
  bool in_frame = false;
  std::string text;  // decompressed; [begin, size) is not handed out yet
  size_t begin = 0;
  size_t searched = 0;  // no line end in [begin, searched)
  int64_t line = 0;

  size_t read_block() { return static_cast<size_t>(read_some(fd.get(), block.data(), block.size(), nullptr, path)); }

  /// Appends to `text`; false at the end of the file.
  bool fill() {
    text.erase(0, std::exchange(begin, 0));
    searched = text.size();
    if (!stream) {
      const size_t n = read_block();
      text.append(block.data(), n);
      return n > 0;
    }
    return decompress();
  }

  bool decompress() {
    const size_t before = text.size();
    const size_t room = ZSTD_DStreamOutSize();
    while (text.size() == before) {
      if (compressed.pos == compressed.size && !output_pending) {
        compressed = {block.data(), read_block(), 0};
        if (compressed.size == 0) {
          if (in_frame) throw Error("the zstd stream is cut short", where(), "fetch the file again");
          return false;
        }
      }
      text.resize(before + room);
      ZSTD_outBuffer out{text.data() + before, room, 0};
      const size_t status = ZSTD_decompressStream(stream.get(), &out, &compressed);
      text.resize(before + out.pos);
      if (ZSTD_isError(status)) {
        throw Error(std::string("broken zstd stream: ") + ZSTD_getErrorName(status), where(),
                    "fetch the file again, or compress it anew with a window of at most 128 MiB (--long=27)");
      }
      in_frame = status != 0;
      output_pending = out.pos == room;
    }
    return true;
  }
  bool output_pending = false;  // the decoder may hold more without further input

  std::string where() const { return path + ":" + std::to_string(line + 1); }
};

LineReader::LineReader(const std::string& path, bool zstd, int64_t max_line_bytes) : impl_(std::make_unique<Impl>()) {
  impl_->path = path;
  impl_->max_line_bytes = max_line_bytes;
  impl_->fd = open_for_reading(path);
  if (!zstd) return;
  impl_->stream.reset(ZSTD_createDStream());
  if (!impl_->stream) throw Error("out of memory for the zstd decoder", path);
  ZSTD_DCtx_setParameter(impl_->stream.get(), ZSTD_d_windowLogMax, 27);
}

LineReader::~LineReader() = default;

int64_t LineReader::line_number() const { return impl_->line; }

bool LineReader::next(std::string_view& line) {
  Impl& r = *impl_;
  for (;;) {
    const size_t end = r.text.find('\n', r.searched);
    if (end != std::string::npos) {
      line = std::string_view(r.text).substr(r.begin, end - r.begin);
      r.begin = r.searched = end + 1;
      break;
    }
    if (static_cast<int64_t>(r.text.size() - r.begin) > r.max_line_bytes) {
      throw Error("a line longer than " + std::to_string(r.max_line_bytes >> 20) + " MiB", r.where(),
                  "one JSON object a line");
    }
    if (!r.fill()) {
      if (r.begin == r.text.size()) return false;
      line = std::string_view(r.text).substr(r.begin);
      r.begin = r.searched = r.text.size();
      break;
    }
  }
  ++r.line;
  return true;
}

}  // namespace msa
