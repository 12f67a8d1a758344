#include "cli/sources.h"

#include <algorithm>
#include <cctype>
#include <filesystem>
#include <set>
#include <string_view>
#include <utility>

#include "cli/decode_text.h"
#include "cli/html_text.h"
#include "cli/pdf_text.h"
#include "core/error.h"
#include "io/beir.h"
#include "io/file_reader.h"
#include "io/text.h"

namespace msa {
namespace {

namespace fs = std::filesystem;

enum class Format { kUnknown, kText, kHtml, kPdf, kBeir, kBeirZstd };

Format format_of(const fs::path& path) {
  struct Suffix {
    std::string_view suffix;
    Format format;
  };
  constexpr Suffix kSuffixes[] = {{".txt", Format::kText},          {".md", Format::kText}, {".html", Format::kHtml},
                                  {".htm", Format::kHtml},          {".pdf", Format::kPdf}, {".jsonl", Format::kBeir},
                                  {".jsonl.zst", Format::kBeirZstd}};
  std::string name = path.filename().string();
  std::transform(name.begin(), name.end(), name.begin(), [](unsigned char c) { return std::tolower(c); });
  for (const Suffix& known : kSuffixes) {
    if (name.ends_with(known.suffix)) return known.format;
  }
  return Format::kUnknown;
}

bool is_beir(Format format) { return format == Format::kBeir || format == Format::kBeirZstd; }

/// The name that a folder's files carry in front: "." and ".." have none of their own.
fs::path folder_name(const fs::path& folder) {
  fs::path name = folder.lexically_normal();
  if (!name.has_filename()) name = name.parent_path();
  name = name.filename();
  if (!name.empty() && name != "." && name != "..") return name;
  std::error_code ignored;
  return fs::canonical(folder, ignored).filename();
}

/// A questions file lies beside the corpus in every BEIR folder; it holds no documents.
bool is_beir_questions(const fs::path& path) {
  if (!path.filename().string().starts_with("queries.jsonl")) return false;
  std::error_code ignored;
  return fs::exists(path.parent_path() / "corpus.jsonl", ignored) ||
         fs::exists(path.parent_path() / "corpus.jsonl.zst", ignored);
}

/// One reading of all paths. The member functions return false when nothing more is wanted.
class SourceReader {
 public:
  SourceReader(const SourceOptions& options, const std::function<bool(SourceDocument&&)>& sink,
               std::vector<SourceProblem>& problems)
      : options_(options), sink_(sink), problems_(problems) {}

  bool read_path(const std::string& path) {
    if (path == "-") return read_stdin();
    std::error_code code;
    if (fs::is_directory(path, code)) return read_folder_argument(path);
    return read_file(path, path);
  }

 private:
  struct Skipped {
    int64_t hidden = 0, unknown = 0, special = 0, repeated = 0, questions = 0;
  };

  bool deliver(std::string text, const std::string& external_id) {
    SourceDocument document{
        std::move(text), options_.external_id.empty() ? replace_invalid_utf8(external_id).text : options_.external_id,
        options_.metadata_json};
    in_sink_ = true;  // stays set when the sink throws
    const bool go_on = sink_(std::move(document));
    in_sink_ = false;
    return go_on;
  }

  void note(const std::string& where, std::string what) { problems_.push_back({where, std::move(what), true}); }

  std::string decoded(std::string bytes, const std::string& where) {
    DecodedText decoded = decode_text(std::move(bytes), where);
    if (decoded.invalid_bytes > 0) {
      note(where, std::to_string(decoded.invalid_bytes) + " bytes that are no UTF-8 replaced by U+FFFD");
    }
    return std::move(decoded.text);
  }

  bool read_stdin() {
    std::string bytes;
    if (!read_all(options_.stdin_fd, options_.max_file_bytes, options_.stop, "stdin", bytes)) return false;
    std::string text = decoded(std::move(bytes), "stdin");
    if (is_blank(text)) throw Error("empty", "stdin", "pipe a text into it");
    return deliver(std::move(text), "-");
  }

  bool read_file(const std::string& path, const std::string& external_id) {
    const Format format = format_of(path);
    if (is_beir(format)) return read_beir_file(path, format == Format::kBeirZstd);
    FileDescriptor fd = open_for_reading(path);
    std::string text;
    if (format == Format::kPdf) {
      fd.reset();
      PdfOptions pdf{options_.pdftotext, options_.pdf_time_limit, options_.max_file_bytes, options_.stop};
      refuse_large(path);
      std::optional<std::string> pages = pdf_to_text(path, pdf);
      if (!pages) return false;
      text = decoded(std::move(*pages), path);
    } else {
      std::string bytes;
      if (!read_all(fd.get(), options_.max_file_bytes, options_.stop, path, bytes)) return false;
      if (bytes.empty()) throw Error("an empty file", path, "leave it out");
      text = format == Format::kHtml ? html_to_text(std::move(bytes), path) : decoded(std::move(bytes), path);
    }
    if (is_blank(text)) {
      throw Error("no text in it", path,
                  format == Format::kPdf ? "scanned pages need character recognition first, for example ocrmypdf"
                                         : "leave it out");
    }
    return deliver(std::move(text), external_id);
  }

  void refuse_large(const std::string& path) {
    const auto bytes = static_cast<int64_t>(fs::file_size(path));
    if (bytes == 0) throw Error("an empty file", path, "leave it out");
    if (bytes > options_.max_file_bytes) {
      throw Error("larger than " + std::to_string(options_.max_file_bytes >> 20) + " MiB", path, "split the file");
    }
  }

  bool read_beir_file(const std::string& path, bool zstd) {
    const BeirSummary summary = read_beir(path, zstd, options_.max_file_bytes, [&](BeirDocument&& document) {
      if (options_.stop && options_.stop()) return false;
      return deliver(document.full_text(), document.id);
    });
    if (summary.stopped) return false;
    if (summary.documents == 0) throw Error("no documents in it", path, "leave it out");
    if (summary.empty > 0) {
      problems_.push_back({path + ":" + std::to_string(summary.first_empty_line),
                           std::to_string(summary.empty) + " of " + std::to_string(summary.documents) +
                               " documents without text left out, the first of them here"});
    }
    return true;
  }

  bool read_folder_argument(const std::string& path) {
    root_ = fs::canonical(path);
    visited_.clear();
    Skipped skipped;
    const int64_t problems_before = static_cast<int64_t>(problems_.size());
    n_read_ = 0;
    if (!read_folder(path, folder_name(path), skipped)) return false;
    report(path, skipped);
    if (n_read_ == 0 && static_cast<int64_t>(problems_.size()) == problems_before) {
      throw Error("an empty folder", path, "give a folder with .txt, .md, .html, .pdf, .jsonl or .jsonl.zst files");
    }
    return true;
  }

  bool read_folder(const fs::path& folder, const fs::path& external_id, Skipped& skipped) {
    std::error_code code;
    const fs::path real = fs::canonical(folder, code);
    if (code || !visited_.insert(real).second) return true;
    std::vector<fs::path> names;
    for (fs::directory_iterator it(folder, code); !code && it != fs::directory_iterator(); it.increment(code)) {
      names.push_back(it->path().filename());
    }
    if (code) problems_.push_back({folder.string(), "cannot be read: " + code.message()});
    std::sort(names.begin(), names.end());
    for (const fs::path& name : names) {
      if (options_.stop && options_.stop()) return false;
      if (!read_entry(folder / name, external_id / name, skipped)) return false;
    }
    return true;
  }

  bool read_entry(const fs::path& path, const fs::path& external_id, Skipped& skipped) {
    if (path.filename().string().starts_with('.')) return ++skipped.hidden, true;
    std::error_code code;
    const fs::file_status status = fs::status(path, code);  // follows links
    if (fs::is_directory(status)) {
      if (fs::is_symlink(path, code) && is_read_elsewhere(path)) return ++skipped.repeated, true;
      return read_folder(path, external_id, skipped);
    }
    if (format_of(path) == Format::kUnknown) return ++skipped.unknown, true;
    if (status.type() != fs::file_type::regular && fs::exists(status)) return ++skipped.special, true;
    if (is_beir_questions(path)) return ++skipped.questions, true;
    try {
      ++n_read_;
      return read_file(path.string(), external_id.string());
    } catch (const Error& error) {
      if (in_sink_) throw;
      problems_.push_back({error.where(), error.problem()});
      return true;
    }
  }

  /// A link to a folder inside the argument, or to one already read through another link: loops end here.
  bool is_read_elsewhere(const fs::path& link) const {
    std::error_code code;
    const fs::path real = fs::canonical(link, code);
    if (code || visited_.contains(real)) return true;
    return std::mismatch(root_.begin(), root_.end(), real.begin(), real.end()).first == root_.end();
  }

  void report(const std::string& folder, const Skipped& skipped) {
    std::string list;
    const auto add = [&](int64_t n, const char* what) {
      if (n > 0) list += (list.empty() ? "" : ", ") + std::to_string(n) + what;
    };
    add(skipped.unknown, " of unknown type");
    add(skipped.hidden, " hidden");
    add(skipped.special, " no regular files");
    add(skipped.repeated, " links to folders read elsewhere");
    add(skipped.questions, " BEIR questions beside a corpus");
    if (!list.empty()) note(folder, "skipped " + list);
  }

  const SourceOptions& options_;
  const std::function<bool(SourceDocument&&)>& sink_;
  std::vector<SourceProblem>& problems_;
  bool in_sink_ = false;
  fs::path root_;               // of the folder argument at hand, canonical
  std::set<fs::path> visited_;  // folders under it, canonical
  int64_t n_read_ = 0;          // files under it that were tried
};

/// --id names one document: a single text, HTML or PDF file, or stdin.
void check_external_id(const std::vector<std::string>& paths, const SourceOptions& options) {
  if (options.external_id.empty()) return;
  std::error_code code;
  if (paths.size() == 1 && !fs::is_directory(paths[0], code) && !is_beir(format_of(paths[0]))) return;
  throw Error("one id is given for several documents", "--id", "add that one file alone");
}

}  // namespace

void read_sources(const std::vector<std::string>& paths, const SourceOptions& options,
                  const std::function<bool(SourceDocument&&)>& sink, std::vector<SourceProblem>& problems) {
  check_external_id(paths, options);
  SourceReader reader(options, sink, problems);
  for (const std::string& path : paths) {
    if (!reader.read_path(path)) return;
  }
}

}  // namespace msa
