// The documents behind `msa add PATH…`: text, Markdown, HTML, PDF, BEIR files, folders of these, and stdin.
#pragma once
#include <chrono>
#include <cstdint>
#include <functional>
#include <string>
#include <vector>

namespace msa {

struct SourceDocument {
  std::string text;           // UTF-8 without BOM and NUL, lines end in LF; never empty
  std::string external_id;    // a file's path, a BEIR _id, "-" for stdin
  std::string metadata_json;  // SourceOptions::metadata_json
};

/// Something that did not stop the reading.
struct SourceProblem {
  std::string where;
  std::string what;
  bool is_note = false;  // true: worth telling, nothing that was asked for is missing
};

struct SourceOptions {
  std::string external_id;                      // instead of the path; only where the paths name one document
  std::string metadata_json;                    // copied into every document
  int64_t max_file_bytes = int64_t{256} << 20;  // of a text, HTML or PDF file, of a PDF's text, of one BEIR line
  std::string pdftotext = "pdftotext";          // program, searched in PATH
  std::chrono::milliseconds pdf_time_limit{60'000};
  int stdin_fd = 0;
  std::function<bool()> stop;  // asked while waiting for a pipe or a program; true ends the reading
};

/// Hands every document behind `paths` to `sink`, in order (folders sorted, each real folder once), until it returns
/// false. A path named here that cannot be read throws Error; what cannot be read inside a folder becomes a problem,
/// and reading goes on. BEIR files are streamed, so documents before a broken line have reached the sink.
/// A folder's hidden and unknown files are skipped and counted in a note.
void read_sources(const std::vector<std::string>& paths, const SourceOptions& options,
                  const std::function<bool(SourceDocument&&)>& sink, std::vector<SourceProblem>& problems);

}  // namespace msa
