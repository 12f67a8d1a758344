// The documents of an evaluation set inside a bank: encoded once, found again by their external ids.
#pragma once
#include <cstdint>
#include <functional>
#include <memory>
#include <string>
#include <unordered_map>
#include <utility>
#include <vector>

#include "bank/bank.h"
#include "engine/bank_writer.h"
#include "engine/model.h"
#include "io/beir.h"

namespace msa::eval {

/// Called with what is done of the total; perhaps often.
using Progress = std::function<void(int64_t done, int64_t total)>;

/// Adds documents to a bank as `msa add` does: long ones in overlapping parts named ID#1, ID#2, …, what is there
/// already passed over. Commits in batches; whatever ends the program, the bank holds a beginning of what was added.
class BankBuilder {
 public:
  static constexpr int kPartTokens = 512;
  static constexpr int kOverlapTokens = 64;

  /// `ranks` (may be null): they encode too.
  BankBuilder(Context& context, const Model& model, Bank& bank, ShardDriver* ranks = nullptr);

  /// Throws Error when the bank has another text under this id. False: it was there.
  bool add(const std::string& external_id, const std::string& text);
  void commit();

  int64_t tokens() const { return bank_tokens_ + pending_tokens_; }  // of all documents, templates included
  int64_t tokens_of(const std::string& text) const;                  // that adding this text would cost, about
  int64_t documents_added() const { return added_; }
  double encode_ms() const { return writer_.encode_ms(); }

 private:
  bool add_part(const std::string& external_id, const std::string& text);

  const Model& model_;
  Bank& bank_;
  BankWriter writer_;
  int64_t commit_tokens_;
  std::unordered_map<std::string, std::string> known_;  // external id → content hash
  std::vector<DocumentInput> inputs_;
  std::vector<std::vector<int32_t>> texts_;  // tokens of inputs_
  int64_t bank_tokens_ = 0, pending_tokens_ = 0, added_ = 0;
};

struct BankReport {
  int64_t documents = 0, chunks = 0, tokens = 0;
  int64_t bytes = 0;  // routing keys and content
  int64_t added = 0;  // parts encoded now, not found in the bank
  double encode_ms = 0;
};

/// Encodes what the bank lacks of the corpus. Throws Error as BankBuilder::add.
BankReport add_corpus(Context& context, const Model& model, Bank& bank, const BeirSet& set, const Progress& progress,
                      ShardDriver* ranks = nullptr);

/// Which document of the set each document of a bank is.
struct DocumentIndex {
  std::vector<int32_t> of_slot;                     // [slots]; an index into ids, or -1 for a removed document
  std::vector<std::string> ids;                     // the set's documents, then those of other origin
  std::unordered_map<DocumentId, int32_t> of_bank;  // bank's id → index into ids
  size_t n_corpus = 0;

  static DocumentIndex of(const Bank& bank, const Snapshot& snapshot, const BeirSet& set);
};

}  // namespace msa::eval
