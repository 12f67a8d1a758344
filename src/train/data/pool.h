// The documents that all samples of one batch share.
#pragma once
#include <cstdint>
#include <span>
#include <unordered_map>
#include <unordered_set>
#include <vector>

#include "tokenizer/template.h"
#include "train/data/random.h"
#include "train/data/training_data.h"

namespace msa::train {

/// Each document carries a random id of 1 to `id_digits` digits, every length equally often while there are ids left:
/// the ids of a small memory are short ones.
class Pool {
 public:
  struct Entry {
    int32_t dataset = 0;
    int32_t document = 0;
    int64_t id = 0;
  };

  /// The arguments outlive the pool.
  Pool(const TrainingData& data, const PromptTemplate& prompts, int id_digits, RandomStream& random);

  /// Adds those documents of one data set that are not there yet, if the pool then holds at most `budget` tokens;
  /// else false, and nothing is added. Throws Error when the ids are used up.
  bool add(int32_t dataset, std::span<const int32_t> documents, int64_t budget);

  /// Index of a document, or -1.
  int32_t find(int32_t dataset, int32_t document) const;
  /// Indices of the documents with these words.
  std::span<const int32_t> same_text(uint64_t text_hash) const;

  int32_t size() const { return static_cast<int32_t>(entries_.size()); }
  const Entry& operator[](int32_t i) const { return entries_[static_cast<size_t>(i)]; }
  std::span<const int32_t> text(int32_t i) const;  // without the template
  /// Template head, then each document with the template around it; tokens of all of them.
  const TokenArrays& sequences() const { return sequences_; }
  int64_t tokens() const { return static_cast<int64_t>(sequences_.tokens.size()); }

 private:
  int64_t draw_id();

  const TrainingData& data_;
  const PromptTemplate& prompts_;
  int id_digits_;
  RandomStream& random_;
  int64_t wrapping_tokens_;  // of the template around a text, at most
  TokenArrays sequences_;
  std::vector<Entry> entries_;
  std::unordered_map<uint64_t, int32_t> index_;               // (data set, document) → entry
  std::unordered_map<uint64_t, std::vector<int32_t>> texts_;  // hash → entries
  std::unordered_set<int64_t> ids_;
};

}  // namespace msa::train
