// RULER's needle tasks over a memory: the haystack lies in the bank, cut into documents; the question is asked.
#pragma once
#include <filesystem>
#include <functional>
#include <memory>
#include <random>
#include <set>
#include <string>
#include <unordered_set>
#include <vector>

#include "engine/bank_writer.h"
#include "engine/generator.h"
#include "eval/needles.h"
#include "eval/score_table.h"

namespace msa::eval {

struct HaystackOptions {
  std::string_view essays;  // needed for kEssay alone; a text shorter than the haystack is repeated
  int document_tokens = 256;
  uint64_t seed = 1;
  std::filesystem::path folder = {};  // of its bank, not there yet; empty: in memory
  ShardDriver* ranks = nullptr;       // those that the bank is shared out among, or null; they need a folder
};

/// A haystack of one kind in a bank of its own. It grows in place; a sample's needles replace the few documents that
/// they fall into, and the next sample puts those back, so a sample costs a few documents to encode, whatever the
/// length. The same documents, whatever the folder and the ranks.
class Haystack {
 public:
  /// The context is the one that documents are encoded on. Throws Error when the essays hold no sentence.
  Haystack(Context& context, const Model& model, const NeedleTask& task, const HaystackOptions& options);

  /// Adds documents until there are at least `tokens`. Forgets the needles.
  void grow(int64_t tokens, const std::function<void(int64_t tokens)>& progress);

  /// Puts the sample's needles in and takes the last one's out. Returns the bank's ids of the documents that hold the
  /// needles that are asked for.
  std::set<DocumentId> place(const NeedleSample& sample);

  const Bank& bank() const { return *bank_; }
  ShardDriver* ranks() const { return ranks_; }
  bool has_key(const std::string& key) const { return keys_.contains(key); }  // of kNeedle

 private:
  using Sentences = std::vector<std::string>;
  std::string next_sentence();
  Sentences next_document();
  void write(const std::vector<size_t>& documents, const std::vector<std::string>& texts);
  static std::string joined(const Sentences& sentences);

  const Model& model_;
  NeedleTask task_;
  std::vector<std::string> prose_;  // kEssay, kNoise: sentences in turn
  int document_tokens_;
  std::mt19937_64 random_;
  std::unordered_set<std::string> keys_;  // kNeedle: of its sentences
  size_t position_ = 0;                   // in prose_
  ShardDriver* ranks_;
  std::unique_ptr<Bank> bank_;
  BankWriter writer_;
  std::vector<Sentences> documents_;   // without needles
  std::vector<DocumentId> ids_;        // [documents] in the bank now; 0: not there yet
  std::vector<size_t> sentence_ends_;  // [documents] sentences up to the end of each
  std::set<size_t> changed_;           // documents that hold needles now
};

inline const std::vector<std::string> kNeedleColumns{"score", "documents_recall", "routed_recall", "ms"};

struct NeedleResult {
  std::string task;
  int64_t tokens = 0;  // asked for
  int64_t bank_tokens = 0, bank_documents = 0;
  ScoreTable scores{kNeedleColumns};
  std::vector<int> depths;               // [samples] of the needle, for tasks with one; else empty
  std::vector<std::string> predictions;  // [samples]
};

struct NeedleOptions {
  int samples = 10;
  uint64_t seed = 1;
  AskOptions ask;
};

/// One task at the haystack's present length. Tasks with one needle go through the depths in turn.
NeedleResult run_needles(Context& context, const Model& model, const NeedleTask& task, Haystack& haystack,
                         const NeedleOptions& options, const std::function<void()>& progress);

/// {"task", "tokens", "metrics", "depths": {"0": score, …}, …}
Json to_json(const NeedleResult& result, const Bootstrap& bootstrap);

}  // namespace msa::eval
