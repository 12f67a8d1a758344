// BEIR collections: corpus.jsonl, queries.jsonl and qrels.tsv in one folder, each plain or zstd-compressed (.zst).
#pragma once
#include <cstdint>
#include <functional>
#include <string>
#include <string_view>
#include <vector>

#include "io/file_reader.h"

namespace msa {

constexpr int64_t kMaxBeirLineBytes = int64_t{64} << 20;

/// A line of the corpus: {"_id", "title" (may be missing), "text"}.
struct BeirDocument {
  std::string id;
  std::string title;
  std::string text;

  /// What a model reads: title, line end, text; the text alone without a title.
  std::string full_text() const { return title.empty() ? text : title + "\n" + text; }
};

/// A line of the questions: {"_id", "text"} and, where the set has them, "answers", "type", "hops".
struct BeirQuery {
  std::string id;
  std::string text;
  std::string type;
  std::vector<std::string> answers;
  std::vector<std::string> hops;  // corpus ids in the order in which they lead to the answer
};

/// A line of qrels.tsv: query-id, corpus-id, score.
struct BeirJudgement {
  std::string_view query_id;
  std::string_view document_id;
  int64_t score = 0;  // above 0: relevant
};

/// One line. Throw Error at `where` when it is no such object.
BeirDocument parse_beir_document(std::string_view line, const std::string& where);
BeirQuery parse_beir_query(std::string_view line, const std::string& where);

struct BeirSummary {
  int64_t documents = 0;
  int64_t empty = 0;  // without any text, not given to the sink
  int64_t first_empty_line = 0;
  bool stopped = false;  // the sink said false
};

/// Streams a plain or zstd-compressed corpus; blank lines are passed over. Throws Error naming file and line.
BeirSummary read_beir(const std::string& path, bool zstd, int64_t max_line_bytes,
                      const std::function<bool(BeirDocument&&)>& sink);

/// Lines that are not blank, with "path:line" for errors; decompressed where the name ends in .zst.
void for_each_line(const std::string& path, int64_t max_line_bytes,
                   const std::function<void(std::string_view line, const std::string& where)>& sink);

/// The header line and three columns a line, separated by tabs. Throws Error naming file and line.
void read_judgements(const std::string& path,
                     const std::function<void(const BeirJudgement&, const std::string& where)>& sink);

/// A question with its documents as indices into BeirSet::documents.
struct BeirQuestion {
  std::string id;
  std::string text;
  std::string type;
  std::vector<std::string> answers;
  std::vector<int32_t> gold;      // judged relevant, in the order of the file; perhaps none
  std::vector<int32_t> grades;    // [gold] the scores of those judgements, above 0
  std::vector<int32_t> hops;      // in order, no document twice; perhaps none
  std::vector<int32_t> possible;  // unlabelled documents that may answer it too
};

struct BeirSet {
  std::string folder;
  std::vector<BeirDocument> documents;  // those with a text
  std::vector<BeirQuestion> questions;
};

/// The corpus alone. Throws Error when it is missing, empty or broken, or names a document twice.
BeirSet load_beir_corpus(const std::string& folder);

/// Corpus, questions, judgements (qrels.tsv, else qrels/test.tsv) and, where the set has one, possible_positives.tsv
/// (columns as qrels.tsv). Throws
/// Error for a missing, empty or broken file, an id given twice, and an id that the corpus or the questions lack.
BeirSet load_beir(const std::string& folder);

/// `name` or `name`.zst in `folder`; empty when there is neither.
std::string find_beir_file(const std::string& folder, const std::string& name);

}  // namespace msa
