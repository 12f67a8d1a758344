// A bank as one file, for carrying elsewhere and for merging: zstd, checksums throughout (layout in docs/bank.md).
#pragma once
#include <cstdint>
#include <filesystem>
#include <functional>
#include <memory>
#include <optional>
#include <vector>

#include "bank/bank.h"

namespace msa {

struct ExportResult {
  int64_t documents = 0;
  int64_t bytes = 0;  // of the file
};

/// Writes all live documents, their text only if asked for. The file is there completely or not at all.
ExportResult export_bank(const Bank& bank, const std::filesystem::path& file, bool with_text,
                         const std::function<void(int64_t done, int64_t total)>& progress = {});

struct TransferredDocument {
  DocumentId id = 0;
  DocumentInput input;
  EncodedDocument encoded;
};

/// Reads an exported file document by document. Every failure is an Error naming the file.
class ExportReader {
 public:
  explicit ExportReader(const std::filesystem::path& file);
  ~ExportReader();
  const BankShape& shape() const;
  int64_t n_documents() const;
  bool has_text() const;
  /// Ids ascend. Nothing after the last document, once the end of the file has been checked too.
  std::optional<TransferredDocument> next();

 private:
  struct Impl;
  std::unique_ptr<Impl> impl_;
};

struct ImportResult {
  std::vector<DocumentId> kept;                              // with the id they had
  std::vector<std::pair<DocumentId, DocumentId>> reencoded;  // id in the file, id in the bank: the former was taken
  int64_t unchanged = 0;                                     // in the bank already
  std::vector<std::string> conflicts;                        // external ids under which the bank has another text
};

/// Verifies the whole file, then adds what the bank does not have. Without `reencode` nothing is added when a document
/// would need another id. Interrupted, it can be repeated.
ImportResult import_file(Bank& bank, const std::filesystem::path& file, const Bank::Reencode& reencode,
                         const std::function<void(int64_t done, int64_t total)>& progress = {});

}  // namespace msa
