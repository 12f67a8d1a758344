// The scale curve: the same questions while the bank grows with distractors.
#pragma once
#include <cstdint>
#include <functional>
#include <map>
#include <string>
#include <vector>

#include "engine/generator.h"
#include "eval/corpus_bank.h"
#include "eval/distractors.h"
#include "eval/score_table.h"

namespace msa::eval {

inline const std::vector<std::string> kScaleColumns{"recall@1", "recall@5", "recall@16", "mrr", "union_recall@16"};
inline const std::vector<std::string> kScaleAnswerColumns{"exact_match", "f1", "documents_recall"};

struct ScaleOptions {
  std::vector<int64_t> sizes;        // tokens, ascending
  std::vector<std::string> corpora;  // distractors: BEIR files or folders
  int64_t questions = -1;            // at most; below 0: as many as fit
  int64_t answered = 0;              // of these, how many are answered too
  Bootstrap bootstrap;
  AskOptions ask;
  DeviceOptions device;
  ShardDriver* ranks = nullptr;  // those that the bank is shared out among, or null
};

/// What was measured when the bank had one size.
struct ScalePoint {
  int64_t size = 0;  // asked for
  int64_t tokens = 0, documents = 0, chunks = 0, bank_bytes = 0, process_bytes = 0;
  std::map<std::string, int64_t> tokens_of;  // by origin: gold, set, other_corpora, synthetic
  double routing_ms = 0;                     // of one question, all layers' scans: median
  double question_ms = 0;                    // of one question up to its scores: median
  ScoreTable retrieval{kScaleColumns};       // [questions]
  ScoreTable answers{kScaleAnswerColumns};   // [answered]
};

/// The run so far: what was chosen and the points measured. Kept in a file, so that a run can go on.
struct ScaleState {
  Json header;  // everything that must be the same to go on
  std::vector<ScalePoint> points;

  static ScaleState load(const std::string& path);  // throws Error when it is no such file
  void save(const std::string& path) const;
};

/// Called with a label, what is done and the total.
using ScaleProgress = std::function<void(const std::string& what, int64_t done, int64_t total)>;

class ScaleRun {
 public:
  /// Questions are drawn with the seed, as many as have all gold documents within nine tenths of the smallest size.
  /// Throws Error when none has.
  ScaleRun(Context& context, const Model& model, Bank& bank, const BeirSet& set, const ScaleOptions& options);

  const std::vector<size_t>& questions() const { return questions_; }
  Json header() const;

  /// Grows the bank to each size and measures there; points of `state` are not measured again. `after` is called with
  /// every new point. Throws Error when the bank is larger than a size that was not measured.
  void run(ScaleState& state, const ScaleProgress& progress, const std::function<void(const ScalePoint&)>& after);

 private:
  void choose_questions();
  void grow(int64_t size, const ScaleProgress& progress);
  ScalePoint measure(int64_t size, const ScaleProgress& progress);
  void measure_time(ScalePoint& point);
  void measure_answers(ScalePoint& point, const ScaleProgress& progress);

  Context& context_;
  const Model& model_;
  Bank& bank_;
  const BeirSet& set_;
  ScaleOptions options_;
  BankBuilder builder_;
  std::vector<size_t> questions_;
  std::vector<int32_t> gold_;
  std::unique_ptr<FillStream> stream_;
  std::optional<FillDocument> waiting_;  // did not fit into the last size
  std::map<std::string, int64_t> tokens_of_;
  int64_t tokens_ = 0;  // of the stream so far
};

/// Per size: counts, times, metrics, and each metric relative to the smallest size (paired bootstrap).
Json to_json(const ScaleState& state, const Bootstrap& bootstrap);

}  // namespace msa::eval
