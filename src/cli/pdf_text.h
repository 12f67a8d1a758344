// The text of a PDF file, through the program pdftotext of poppler-utils.
#pragma once
#include <chrono>
#include <cstdint>
#include <functional>
#include <optional>
#include <string>

namespace msa {

struct PdfOptions {
  std::string program = "pdftotext";
  std::chrono::milliseconds time_limit{60'000};
  int64_t max_text_bytes = int64_t{256} << 20;
  std::function<bool()> stop;  // true ends the wait
};

/// UTF-8 as the program wrote it; nothing when stopped. The program runs without a shell and is always reaped.
/// Throws Error: not installed, over the time limit, no PDF, encrypted.
std::optional<std::string> pdf_to_text(const std::string& path, const PdfOptions& options);

}  // namespace msa
