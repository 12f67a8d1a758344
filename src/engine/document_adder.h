// Texts into a bank, as `msa add` and the server take them: split where they are long, known ones left alone, the
// others encoded and committed in batches.
#pragma once
#include <functional>
#include <optional>
#include <set>
#include <string>
#include <vector>

#include "bank/bank.h"
#include "core/error.h"
#include "engine/bank_writer.h"
#include "engine/model.h"

namespace msa {

/// The bank has another text under this external id, and replacing it was not asked for.
struct DocumentConflict : Error {
  using Error::Error;
};

/// The document that was to be live is not.
struct DocumentGone : Error {
  using Error::Error;
};

struct AdderOptions {
  std::string name_space;
  bool replace = false;  // the documents that have these external ids
  std::optional<DocumentId> first_id;
  int max_tokens = 512;  // longer texts are split
  int overlap = 64;      // tokens that neighbouring parts share
};

/// Of one text; metadata_json is a JSON object.
struct NewDocument {
  std::string text, external_id, metadata_json;
};

struct AddReport {
  std::vector<DocumentId> added, replaced, reinstated;
  int64_t unchanged = 0, tokens = 0;
  double encode_ms = 0, store_ms = 0;
};

class DocumentAdder {
 public:
  /// What fits into the model's context of one part of a text.
  static int most_tokens(const Model& model);
  /// Throws Error where max_tokens is above most_tokens(). `ranks` may be null.
  DocumentAdder(Context& context, const Model& model, Bank& bank, const AdderOptions& options, ShardDriver* ranks);

  using Progress = BankWriter::Progress;
  /// Into how many parts the text went. Commits when enough is pending. Throws DocumentConflict, and Error for an
  /// external id that came before in the same batch.
  int take(const NewDocument& document, const Progress& progress = {});
  /// The next commit stores nothing and throws DocumentGone unless this document is live then.
  void only_if_live(DocumentId id) { edit_.only_if_live = {id}; }
  /// Ends a document in the next commit.
  void remove(DocumentId id) { edit_.remove.push_back(id); }
  void commit(const Progress& progress = {});

  /// Of all that was committed.
  AddReport report() const;

 private:
  void take_part(std::string external_id, const std::string& text, const std::string& metadata);
  bool keeps(const std::string& external_id, const std::string& text, const std::string& metadata);
  void remove_other_parts(const std::string& name, const std::set<std::string>& names);

  const Model& model_;
  Bank& bank_;
  AdderOptions options_;
  BankWriter writer_;
  int64_t commit_tokens_;
  std::vector<DocumentInput> inputs_;
  std::vector<std::vector<int32_t>> texts_;  // tokens of inputs_
  std::set<std::string> pending_ids_;
  AddOptions edit_;
  int64_t pending_tokens_ = 0;
  AddReport report_;
};

}  // namespace msa
