// BEIR collections: one JSON object a line, {"_id", "title" (may be missing), "text", …}.
#pragma once
#include <functional>
#include <string>

#include "cli/file_reader.h"

namespace msa {

struct BeirDocument {
  std::string id;
  std::string text;  // title, line end, text; the text alone without a title
};

/// One line. Throws Error at `where` when it is no such object.
BeirDocument parse_beir_line(std::string_view line, const std::string& where);

struct BeirSummary {
  int64_t documents = 0;
  int64_t empty = 0;  // without any text, not given to the sink
  int64_t first_empty_line = 0;
  bool stopped = false;  // the sink said false
};

/// Streams a plain or zstd-compressed file; blank lines are passed over. Throws Error naming file and line.
BeirSummary read_beir(const std::string& path, bool zstd, int64_t max_line_bytes,
                      const std::function<bool(BeirDocument&&)>& sink);

}  // namespace msa
