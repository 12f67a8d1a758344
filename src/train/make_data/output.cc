#include "train/make_data/output.h"

#include <zstd.h>

#include <cstdlib>
#include <filesystem>
#include <nlohmann/json.hpp>
#include <sstream>
#include <system_error>

#include "core/error.h"
#include "io/file.h"

namespace msa::train {
namespace {

using nlohmann::ordered_json;

constexpr int kZstdLevel = 9;

void write_zstd(const std::string& path, const std::string& content) {
  std::string bytes(ZSTD_compressBound(content.size()), '\0');
  const size_t size = ZSTD_compress(bytes.data(), bytes.size(), content.data(), content.size(), kZstdLevel);
  if (ZSTD_isError(size)) throw Error(std::string("zstd: ") + ZSTD_getErrorName(size), path, "free some memory");
  bytes.resize(size);
  write_file_atomically(path, bytes);
}

std::string corpus_lines(const std::vector<BeirDocument>& documents) {
  std::string lines;
  for (const BeirDocument& document : documents) {
    const ordered_json line = {{"_id", document.id}, {"title", document.title}, {"text", document.text}};
    lines.append(line.dump()) += '\n';
  }
  return lines;
}

std::string question_lines(const std::vector<BeirDocument>& documents, const std::vector<FinishedQuestion>& questions) {
  std::string lines;
  for (const FinishedQuestion& finished : questions) {
    const Question& question = finished.question;
    ordered_json line = {{"_id", finished.id},
                         {"text", question.text},
                         {"answers", question.answers},
                         {"type", kQuestionKindNames[static_cast<size_t>(question.kind)]}};
    if (question.kind == QuestionKind::kBridge) {
      for (const int32_t hop : question.gold) line["hops"].push_back(documents[static_cast<size_t>(hop)].id);
    }
    if (finished.is_removed) line["removed"] = true;
    lines.append(line.dump()) += '\n';
  }
  return lines;
}

}  // namespace

std::string source_note(const MakeDataOptions& options, const MakeDataReport& report) {
  std::ostringstream note;
  note << "made by: msa-train make-data\n"
       << "corpus: " << std::filesystem::path(options.corpus).lexically_normal().string() << '\n'
       << "seed: " << options.seed << '\n'
       << "documents: " << report.documents << (options.limit_documents > 0 ? " (the first ones)" : "") << '\n'
       << "documents without a sentence that is a question: " << report.changed_documents << '\n'
       << "tables: " << report.tables << '\n';
  for (size_t kind = 0; kind < kQuestionKinds; ++kind) {
    note << kQuestionKindNames[kind] << ": " << report.kept[kind] << " of " << report.made[kind] << '\n';
  }
  note << "hard negatives: " << report.hard_negatives << ", at most " << options.hard_negatives << " a question\n";
  return note.str();
}

void write_output(const std::string& folder, const std::vector<BeirDocument>& documents,
                  const std::vector<FinishedQuestion>& questions, const std::string& note) {
  std::error_code code;
  std::filesystem::create_directories(folder, code);
  if (code) throw Error("cannot make the folder: " + code.message(), folder, "give a folder that can be written");
  std::string qrels = "query-id\tcorpus-id\tscore\n";
  std::string negatives = "query-id\tcorpus-id\n";
  for (const FinishedQuestion& finished : questions) {
    const auto add = [&](std::string& lines, int32_t document, const char* end) {
      lines.append(finished.id).append("\t").append(documents[static_cast<size_t>(document)].id).append(end);
    };
    for (const int32_t gold : finished.question.gold) add(qrels, gold, "\t1\n");
    for (const int32_t negative : finished.hard_negatives) add(negatives, negative, "\n");
  }
  write_zstd(folder + "/corpus.jsonl.zst", corpus_lines(documents));
  write_zstd(folder + "/queries.jsonl.zst", question_lines(documents, questions));
  write_file_atomically(folder + "/qrels.tsv", qrels);
  write_file_atomically(folder + "/hard_negatives.tsv", negatives);
  write_file_atomically(folder + "/SOURCE", note);
}

}  // namespace msa::train
