#include "train/make_data/make_data.h"

#include <algorithm>
#include <filesystem>
#include <system_error>
#include <unordered_map>
#include <utility>

#include "core/error.h"
#include "core/thread_pool.h"
#include "io/beir.h"
#include "train/data/bm25.h"
#include "train/data/words.h"
#include "train/make_data/linked_questions.h"
#include "train/make_data/output.h"
#include "train/make_data/text_questions.h"

namespace msa::train {
namespace {

constexpr int64_t kBlock = 4096;  // documents or questions between two calls of progress
constexpr int64_t kMaxHardNegatives = 1000;

size_t index_of(QuestionKind kind) { return static_cast<size_t>(kind); }

void check(const MakeDataOptions& options) {
  if (options.corpus.empty()) throw Error("no corpus", "corpus folder", "name a folder that holds corpus.jsonl[.zst]");
  if (options.output.empty()) throw Error("no output folder", "output folder", "name one");
  std::error_code code;
  if (std::filesystem::equivalent(options.corpus, options.output, code)) {
    throw Error("the output folder is the corpus folder", options.output, "name another output folder");
  }
  for (size_t kind = 0; kind < kQuestionKinds; ++kind) {
    if (options.most[kind] < kAllQuestions) {
      throw Error("a negative count", kQuestionKindNames[kind], "give a number, or -1 for all");
    }
  }
  if (!(options.removed_share >= 0 && options.removed_share <= 1)) {
    throw Error("not between 0 and 1", "share of removed sentences", "give a share");
  }
  if (options.hard_negatives < 0 || options.hard_negatives > kMaxHardNegatives) {
    throw Error("not between 0 and " + std::to_string(kMaxHardNegatives), "hard negatives", "give fewer");
  }
  if (options.limit_documents < 0) throw Error("a negative count", "limit of documents", "give 0 for all");
}

using Questions = std::vector<Question>;

class Maker {
 public:
  Maker(const MakeDataOptions& options, const MakeDataProgress& progress)
      : options_(options),
        progress_(progress),
        pool_(options.threads),
        documents_(load()),
        catalogue_(documents_, pool_) {
    report_.documents = size();
  }

  MakeDataReport run() {
    make_inverse_cloze_questions();
    find_words();
    make_text_questions(QuestionKind::kFillIn, make_fill_in);
    make_text_questions(QuestionKind::kTitle, make_title);
    make_linked_questions();
    finish();
    write_output(options_.output, documents_, finished_, source_note(options_, report_));
    return report_;
  }

 private:
  int64_t size() const { return static_cast<int64_t>(documents_.size()); }
  bool wants(QuestionKind kind) const { return options_.most[index_of(kind)] != 0; }
  void tell(std::string_view stage, int64_t done, int64_t total) const {
    if (progress_) progress_(stage, done, total);
  }

  std::vector<BeirDocument> load() const {
    tell("read the corpus", 0, 0);
    std::vector<BeirDocument> documents = load_beir_corpus(options_.corpus).documents;
    const auto limit = static_cast<size_t>(options_.limit_documents);
    if (limit > 0 && documents.size() > limit) documents.resize(limit);
    return documents;
  }

  /// body(i, questions) for every document, on all threads; the questions in document order.
  template <class Body>
  Questions for_each_document(std::string_view stage, const Body& body) {
    Questions all;
    std::vector<Questions> parts(kBlock);
    for (int64_t block = 0; block < size(); block += kBlock) {
      const int64_t n = std::min(kBlock, size() - block);
      pool_.parallel_for(n, 16, [&](int64_t begin, int64_t end, int) {
        for (int64_t i = begin; i < end; ++i) body(static_cast<int32_t>(block + i), parts[static_cast<size_t>(i)]);
      });
      for (Questions& part : parts) {
        std::move(part.begin(), part.end(), std::back_inserter(all));
        part.clear();
      }
      tell(stage, block + n, size());
    }
    return all;
  }

  /// A stream of draws for one document and purpose.
  Random random_of(std::string_view purpose, const std::string& id) const {
    return {options_.seed, std::string(purpose).append(":").append(id)};
  }

  void make_inverse_cloze_questions() {
    if (!wants(QuestionKind::kInverseCloze)) return;
    keep(QuestionKind::kInverseCloze, for_each_document("inverse cloze", [&](int32_t i, Questions& out) {
           const BeirDocument& document = documents_[static_cast<size_t>(i)];
           Random random = random_of("inverse_cloze", document.id);
           make_inverse_cloze({catalogue_, document, i}, random, out);
         }));
    for (FinishedQuestion& finished : finished_) {
      BeirDocument& document = documents_[static_cast<size_t>(finished.question.gold[0])];
      finished.is_removed = random_of("removed", document.id).chance(options_.removed_share);
      if (finished.is_removed) remove_sentence(document.text, finished.question.sentence);
      finished.question.sentence = {};
      report_.changed_documents += finished.is_removed;
    }
  }

  /// `sentence` is a view into `text`, and not its first one.
  static void remove_sentence(std::string& text, std::string_view sentence) {
    auto begin = static_cast<size_t>(sentence.data() - text.data());
    const size_t end = begin + sentence.size();
    MSA_CHECK(begin > 0 && end <= text.size());
    while (begin > 0 && (text[begin - 1] == ' ' || text[begin - 1] == '\n')) --begin;
    text.erase(begin, end - begin);
  }

  void find_words() {
    words_.resize(documents_.size());
    pool_.parallel_for(size(), 16, [&](int64_t begin, int64_t end, int) {
      for (auto i = static_cast<size_t>(begin); i < static_cast<size_t>(end); ++i) {
        words_[i] = spaced_words(documents_[i].full_text());
      }
    });
  }

  using MakeText = void (*)(const Source&, Random&, Questions&);
  void make_text_questions(QuestionKind kind, MakeText make) {
    if (!wants(kind)) return;
    const char* name = kQuestionKindNames[index_of(kind)];
    keep(kind, for_each_document(name, [&](int32_t i, Questions& out) {
           const BeirDocument& document = documents_[static_cast<size_t>(i)];
           Random random = random_of(name, document.id);
           make({catalogue_, document, i}, random, out);
         }));
  }

  void make_linked_questions() {
    const Corpus corpus{documents_, words_, catalogue_};
    Questions links;
    Questions bridges;
    if (wants(QuestionKind::kBridge)) {
      bridges = for_each_document("bridge", [&](int32_t i, Questions& out) {
        Random random = random_of("bridge", documents_[static_cast<size_t>(i)].id);
        make_text_bridges(corpus, i, random, out);
      });
    }
    if (wants(QuestionKind::kLink) || wants(QuestionKind::kBridge)) read_tables(corpus, links, bridges);
    if (wants(QuestionKind::kLink)) keep(QuestionKind::kLink, std::move(links));
    if (wants(QuestionKind::kBridge)) keep(QuestionKind::kBridge, std::move(bridges));
  }

  void read_tables(const Corpus& corpus, Questions& links, Questions& bridges) {
    const std::string path = find_beir_file(options_.corpus, "tables.jsonl");
    if (path.empty()) return;
    std::unordered_map<std::string, int32_t> numbers;
    for (size_t i = 0; i < documents_.size(); ++i) numbers.emplace(documents_[i].id, static_cast<int32_t>(i));
    for_each_line(path, kMaxBeirLineBytes, [&](std::string_view line, const std::string& where) {
      const Table table = parse_table(line, where, [&](const std::string& id) {
        const auto found = numbers.find(id);
        return found == numbers.end() ? -1 : found->second;
      });
      Random random = random_of("table", table.id);
      make_links(corpus, table, random, links);
      make_table_bridges(corpus, table, random, bridges);
      if (++report_.tables % 256 == 0) tell("tables", report_.tables, 0);
    });
  }

  /// Drops answers that the document that should hold them lacks; whether one is left.
  bool has_answer(Question& question) const {
    if (question.kind == QuestionKind::kInverseCloze) return true;
    const std::string& words = words_[static_cast<size_t>(question.gold.back())];
    std::erase_if(question.answers,
                  [&](const std::string& answer) { return !contains_words(words, spaced_words(answer)); });
    return !question.answers.empty();
  }

  /// Takes the questions that pass, at most as many as wanted, in their order.
  void keep(QuestionKind kind, Questions questions) {
    std::erase_if(questions, [&](Question& question) { return !has_answer(question); });
    drop_repeated(questions);
    const size_t at = index_of(kind);
    report_.made[at] = static_cast<int64_t>(questions.size());
    const auto most = static_cast<size_t>(options_.most[at] == kAllQuestions ? report_.made[at] : options_.most[at]);
    const std::vector<size_t> chosen = draw(questions, most);
    for (const size_t i : chosen) {
      std::string id = std::string(kQuestionKindNames[at]) + "-" + std::to_string(report_.kept[at]++);
      finished_.push_back({std::move(id), std::move(questions[i]), false, {}});
    }
  }

  /// The same words of the same document count once; of several documents they ask for nothing.
  static void drop_repeated(Questions& questions) {
    std::unordered_map<std::string, size_t> first;
    std::vector<bool> is_dropped(questions.size());
    for (size_t i = 0; i < questions.size(); ++i) {
      const auto [entry, is_new] = first.emplace(spaced_words(questions[i].text), i);
      if (is_new) continue;
      is_dropped[i] = true;
      if (questions[entry->second].gold != questions[i].gold) is_dropped[entry->second] = true;
    }
    size_t i = 0;
    std::erase_if(questions, [&](const Question&) { return is_dropped[i++]; });
  }

  /// Indices of at most `most` questions, ascending. A larger number takes the same questions and more.
  std::vector<size_t> draw(const Questions& questions, size_t most) const {
    std::vector<std::pair<uint64_t, size_t>> order;
    for (size_t i = 0; i < questions.size(); ++i) order.emplace_back(Random::hash(options_.seed, questions[i].text), i);
    std::sort(order.begin(), order.end());
    order.resize(std::min(order.size(), most));
    std::vector<size_t> chosen;
    for (const auto& [hash, i] : order) chosen.push_back(i);
    std::sort(chosen.begin(), chosen.end());
    return chosen;
  }

  void finish() {
    const auto total = static_cast<int64_t>(finished_.size());
    if (total == 0) {
      throw Error("no questions could be made", options_.corpus,
                  "the corpus needs titles and texts of several sentences; ask for more kinds");
    }
    if (options_.hard_negatives == 0) return;
    tell("index", 0, 0);
    const Bm25Index index(size(), [&](int64_t i) { return documents_[static_cast<size_t>(i)].full_text(); });
    for (int64_t block = 0; block < total; block += kBlock) {
      const int64_t n = std::min(kBlock, total - block);
      std::vector<std::string_view> texts;
      for (int64_t i = block; i < block + n; ++i) texts.push_back(finished_[static_cast<size_t>(i)].question.text);
      const auto hits = index.top(texts, 2 * options_.hard_negatives + 8, pool_);
      for (int64_t i = 0; i < n; ++i) {
        add_hard_negatives(finished_[static_cast<size_t>(block + i)], hits[static_cast<size_t>(i)]);
      }
      tell("hard negatives", block + n, total);
    }
  }

  void add_hard_negatives(FinishedQuestion& finished, const std::vector<Bm25Hit>& hits) {
    const Question& question = finished.question;
    std::vector<std::string> answers;
    for (const std::string& answer : question.answers) answers.push_back(spaced_words(answer));
    for (const Bm25Hit& hit : hits) {
      if (static_cast<int64_t>(finished.hard_negatives.size()) == options_.hard_negatives) break;
      const bool is_gold = std::find(question.gold.begin(), question.gold.end(), hit.document) != question.gold.end();
      const std::string& words = words_[static_cast<size_t>(hit.document)];
      const bool answers_too = std::any_of(answers.begin(), answers.end(),
                                           [&](const std::string& answer) { return contains_words(words, answer); });
      if (!is_gold && !answers_too) finished.hard_negatives.push_back(hit.document);
    }
    report_.hard_negatives += static_cast<int64_t>(finished.hard_negatives.size());
  }

  const MakeDataOptions& options_;
  const MakeDataProgress& progress_;
  ThreadPool pool_;
  MakeDataReport report_;
  std::vector<BeirDocument> documents_;
  Catalogue catalogue_;
  std::vector<std::string> words_;  // [documents_]
  std::vector<FinishedQuestion> finished_;
};

}  // namespace

MakeDataReport make_data(const MakeDataOptions& options, const MakeDataProgress& progress) {
  check(options);
  return Maker(options, progress).run();
}

}  // namespace msa::train
