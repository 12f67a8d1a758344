#include <algorithm>
#include <filesystem>
#include <unordered_map>
#include <utility>

#include "core/error.h"
#include "io/beir.h"
#include "io/text.h"

namespace msa {
namespace {

constexpr const char* kFilesFix =
    "a set holds corpus.jsonl, queries.jsonl and qrels.tsv, each plain or with .zst behind";

std::string need_file(const std::string& folder, const std::string& name) {
  std::string path = find_beir_file(folder, name);
  if (!path.empty()) return path;
  const bool is_folder = std::filesystem::is_directory(folder);
  throw Error(is_folder ? "no such file" : "no such folder", is_folder ? folder + "/" + name : folder, kFilesFix);
}

/// Appends an index that the list lacks.
void add_once(std::vector<int32_t>& list, int32_t index) {
  if (std::find(list.begin(), list.end(), index) == list.end()) list.push_back(index);
}

class SetLoader {
 public:
  explicit SetLoader(const std::string& folder) { set_.folder = folder; }

  BeirSet take() { return std::move(set_); }

  void load_corpus() {
    const std::string path = need_file(set_.folder, "corpus.jsonl");
    int64_t number = 0;
    for_each_line(path, kMaxBeirLineBytes, [&](std::string_view line, const std::string& where) {
      BeirDocument document = parse_beir_document(line, where);
      const bool empty = is_blank(document.title) && is_blank(document.text);
      if (!documents_.emplace(document.id, empty ? kEmpty : static_cast<int32_t>(set_.documents.size())).second) {
        throw Error("document '" + document.id + "' is there twice", where, "give each document an id of its own");
      }
      ++number;
      if (!empty) set_.documents.push_back(std::move(document));
    });
    if (set_.documents.empty()) throw Error(number == 0 ? "no documents in it" : "no document has a text", path);
  }

  void load_questions() {
    const std::string path = need_file(set_.folder, "queries.jsonl");
    for_each_line(path, kMaxBeirLineBytes, [&](std::string_view line, const std::string& where) {
      BeirQuery query = parse_beir_query(line, where);
      if (!questions_.emplace(query.id, set_.questions.size()).second) {
        throw Error("question '" + query.id + "' is there twice", where, "give each question an id of its own");
      }
      BeirQuestion question{
          query.id, std::move(query.text), std::move(query.type), std::move(query.answers), {}, {}, {}, {}};
      for (const std::string& id : query.hops) {
        const int32_t document = document_of(id, where);
        if (document != kEmpty) add_once(question.hops, document);
      }
      set_.questions.push_back(std::move(question));
    });
    if (set_.questions.empty()) throw Error("no questions in it", path);
  }

  void load_judgements() {
    // Published collections keep one file of judgements for each part of the questions.
    const std::string published = find_beir_file(set_.folder, "qrels/test.tsv");
    const bool is_published = find_beir_file(set_.folder, "qrels.tsv").empty() && !published.empty();
    const std::string path = is_published ? published : need_file(set_.folder, "qrels.tsv");
    int64_t relevant = 0;
    read_judgements(path, [&](const BeirJudgement& judgement, const std::string& where) {
      BeirQuestion& question = question_of(judgement.query_id, where);
      const int32_t document = document_of(judgement.document_id, where);
      if (judgement.score <= 0 || document == kEmpty) return;
      if (std::find(question.gold.begin(), question.gold.end(), document) != question.gold.end()) return;
      question.gold.push_back(document);
      question.grades.push_back(grade_of(judgement, where));
      ++relevant;
    });
    if (relevant == 0) throw Error("no document is judged relevant", path);
  }

  void load_possible_positives() {
    const std::string path = find_beir_file(set_.folder, "possible_positives.tsv");
    if (path.empty()) return;
    read_judgements(path, [&](const BeirJudgement& judgement, const std::string& where) {
      BeirQuestion& question = question_of(judgement.query_id, where);
      const int32_t document = document_of(judgement.document_id, where);
      if (document != kEmpty) add_once(question.possible, document);
    });
  }

 private:
  static constexpr int64_t kMaxGrade = 1000;
  static constexpr int32_t kEmpty = -1;  // a document without a text: known, but not in the set

  int32_t document_of(std::string_view id, const std::string& where) const {
    const auto it = documents_.find(std::string(id));
    if (it == documents_.end()) {
      throw Error("the corpus has no document '" + std::string(id) + "'", where, "use files of one and the same set");
    }
    return it->second;
  }

  static int32_t grade_of(const BeirJudgement& judgement, const std::string& where) {
    if (judgement.score <= kMaxGrade) return static_cast<int32_t>(judgement.score);
    throw Error("the score is above " + std::to_string(kMaxGrade), where, "grades are small whole numbers");
  }

  BeirQuestion& question_of(std::string_view id, const std::string& where) {
    const auto it = questions_.find(std::string(id));
    if (it == questions_.end()) {
      throw Error("there is no question '" + std::string(id) + "'", where, "use files of one and the same set");
    }
    return set_.questions[it->second];
  }

  BeirSet set_;
  std::unordered_map<std::string, int32_t> documents_;
  std::unordered_map<std::string, size_t> questions_;
};

}  // namespace

std::string find_beir_file(const std::string& folder, const std::string& name) {
  for (const char* suffix : {"", ".zst"}) {
    std::string path = (std::filesystem::path(folder) / (name + suffix)).string();
    std::error_code ignored;
    if (std::filesystem::exists(path, ignored)) return path;
  }
  return "";
}

BeirSet load_beir_corpus(const std::string& folder) {
  SetLoader loader(folder);
  loader.load_corpus();
  return loader.take();
}

BeirSet load_beir(const std::string& folder) {
  SetLoader loader(folder);
  loader.load_corpus();
  loader.load_questions();
  loader.load_judgements();
  loader.load_possible_positives();
  return loader.take();
}

}  // namespace msa
