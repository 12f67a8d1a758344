// Documents into a bank: encoded and committed, by this process or by all ranks of a run.
#pragma once
#include <functional>
#include <span>
#include <vector>

#include "bank/bank.h"
#include "engine/encoder.h"

namespace msa {

class ShardDriver;

class BankWriter {
 public:
  /// `ranks` may be null. With ranks each encodes a share of the documents, of about as many tokens, and writes it as a
  /// segment into the bank's folder; rank 0 commits them all in one transaction.
  BankWriter(Context& context, const Model& model, Bank& bank, ShardDriver* ranks = nullptr);

  using Progress = std::function<void(int64_t tokens)>;
  /// One commit, as Bank::add. `documents` [n]: what the model is to see of each.
  [[nodiscard]] AddResult add(std::span<const DocumentId> ids, std::span<const DocumentInput> inputs,
                              std::span<const DocumentTokens> documents, const AddOptions& options = {},
                              const Progress& progress = {});

  double encode_ms() const { return encode_ms_; }  // of all additions so far; with ranks, writing segments included
  double store_ms() const { return store_ms_; }

 private:
  struct Share {
    size_t begin = 0, end = 0;  // documents
    int rank = 0;
    int64_t number = 0;   // of its segment
    uint64_t ticket = 0;  // of another rank's
  };
  struct Batch {
    std::span<const DocumentId> ids;
    std::span<const DocumentTokens> documents;
    const Progress& progress;
  };
  std::vector<Share> shares_of(const Batch& batch, int64_t first_number) const;
  Bank::WrittenSegments write(const Batch& batch, int64_t first_number);
  void ask(const Batch& batch, Share& share);
  void encode_here(const Batch& batch, const Share& share, Bank::WrittenSegments& out);
  /// False where the rank is lost.
  bool receive(const Batch& batch, const Share& share, Bank::WrittenSegments& out);

  Context& context_;
  const Model& model_;
  Bank& bank_;
  ShardDriver* ranks_;
  Encoder encoder_;
  double encode_ms_ = 0, store_ms_ = 0;
};

}  // namespace msa
