#include "eval/niah.h"

#include <algorithm>
#include <map>
#include <utility>

namespace msa::eval {
namespace {

// Documents encoded between two commits of a growing haystack, by all ranks together: after a commit the tokens still
// wanted are counted anew, so with another number the haystack would end elsewhere.
constexpr size_t kCommitDocuments = 256;

std::unique_ptr<Bank> make_bank(const Model& model, const std::filesystem::path& folder) {
  const BankShape shape = bank_shape(model.transformer());
  return folder.empty() ? Bank::in_memory(shape) : Bank::create_or_open(folder, shape, BankMode::kWrite);
}

std::vector<int> draw_depths(const NeedleTask& task, int sample, std::mt19937_64& random) {
  std::vector<int> depths = needle_depths();
  const auto n = static_cast<size_t>(task.needles());
  // Steps of 13 (coprime to 40) spread few samples over the whole range.
  if (n == 1) return {depths[static_cast<size_t>(sample) * 13 % depths.size()]};
  for (size_t i = 0; i < n; ++i) std::swap(depths[i], depths[i + draw_below(random, depths.size() - i)]);
  depths.resize(n);
  return depths;
}

double share_of(const std::set<DocumentId>& wanted, const std::vector<DocumentId>& found) {
  const auto n = std::count_if(wanted.begin(), wanted.end(),
                               [&](DocumentId id) { return std::find(found.begin(), found.end(), id) != found.end(); });
  return static_cast<double>(n) / static_cast<double>(wanted.size());
}

}  // namespace

Haystack::Haystack(Context& context, const Model& model, const NeedleTask& task, const HaystackOptions& options)
    : model_(model),
      task_(task),
      document_tokens_(options.document_tokens),
      random_(options.seed),
      ranks_(options.ranks),
      bank_(make_bank(model, options.folder)),
      writer_(context, model, *bank_, options.ranks) {
  MSA_CHECK(ranks_ == nullptr || !options.folder.empty());
  if (task.haystack == HaystackKind::kNoise) prose_ = {std::string(kNoiseParagraph)};
  if (task.haystack == HaystackKind::kEssay) {
    prose_ = split_sentences(options.essays);
    if (prose_.empty()) throw Error("the haystack has no sentence", "--essays", "give a text file of prose");
  }
}

std::string Haystack::next_sentence() {
  if (prose_.empty()) {
    KeyedSentence needle = draw_needle_sentence(task_, random_);
    keys_.insert(std::move(needle.key));
    return std::move(needle.sentence);
  }
  return prose_[position_++ % prose_.size()];
}

Haystack::Sentences Haystack::next_document() {
  Sentences document;
  int tokens = 0;
  while (tokens < document_tokens_) {
    document.push_back(next_sentence());
    tokens += static_cast<int>(model_.tokenizer().encode(" " + document.back()).size());
    if (tokens > model_.config().max_positions / 2) {
      throw Error("a sentence of " + std::to_string(tokens) + " tokens does not fit into a document", "--essays",
                  "give prose with sentence ends");
    }
  }
  return document;
}

std::string Haystack::joined(const Sentences& sentences) {
  std::string text;
  for (const std::string& s : sentences) text += (text.empty() ? "" : " ") + s;
  return text;
}

void Haystack::write(const std::vector<size_t>& documents, const std::vector<std::string>& texts) {
  if (documents.empty()) return;
  const std::vector<DocumentId> ids = bank_->reserve_ids(static_cast<int64_t>(documents.size()));
  std::vector<DocumentTokens> tokens;
  std::vector<DocumentInput> inputs;
  AddOptions edit;
  for (size_t i = 0; i < documents.size(); ++i) {
    tokens.push_back(model_.prompts().document(ids[i], model_.tokenizer().encode(texts[i])).tokens);
    inputs.push_back({texts[i], "", "", ""});
    if (ids_[documents[i]] != 0) edit.remove.push_back(ids_[documents[i]]);
    ids_[documents[i]] = ids[i];
  }
  const AddResult result = writer_.add(ids, inputs, tokens, edit);
  MSA_CHECK(result.committed());
}

void Haystack::grow(int64_t tokens, const std::function<void(int64_t)>& progress) {
  place({});
  while (bank_->statistics().tokens < tokens) {
    int64_t expected = bank_->statistics().tokens;
    std::vector<size_t> added;
    std::vector<std::string> texts;
    while (expected < tokens && added.size() < kCommitDocuments) {
      added.push_back(documents_.size());
      documents_.push_back(next_document());
      sentence_ends_.push_back((sentence_ends_.empty() ? 0 : sentence_ends_.back()) + documents_.back().size());
      ids_.push_back(0);
      texts.push_back(joined(documents_.back()));
      expected += document_tokens_;
    }
    write(added, texts);
    if (progress) progress(bank_->statistics().tokens);
  }
}

std::set<DocumentId> Haystack::place(const NeedleSample& sample) {
  std::map<size_t, Sentences> with_needles;
  std::set<size_t> wanted;
  // From the deepest up, so that insertions do not move what is still to come.
  for (auto needle = sample.needles.rbegin(); needle != sample.needles.rend(); ++needle) {
    const size_t sentence = sentence_ends_.back() * static_cast<size_t>(needle->depth) / 100;
    const auto end = std::upper_bound(sentence_ends_.begin(), sentence_ends_.end(), sentence);
    const size_t d = std::min(static_cast<size_t>(end - sentence_ends_.begin()), documents_.size() - 1);
    const size_t first = d == 0 ? 0 : sentence_ends_[d - 1];
    Sentences& text = with_needles.try_emplace(d, documents_[d]).first->second;
    text.insert(text.begin() + static_cast<std::ptrdiff_t>(sentence - first), needle->sentence);
    if (needle->wanted) wanted.insert(d);
  }
  std::vector<size_t> rewritten;
  std::vector<std::string> texts;
  for (const size_t d : changed_) {
    if (with_needles.contains(d)) continue;
    rewritten.push_back(d);
    texts.push_back(joined(documents_[d]));
  }
  changed_.clear();
  for (const auto& [d, text] : with_needles) {
    rewritten.push_back(d);
    texts.push_back(joined(text));
    changed_.insert(d);
  }
  write(rewritten, texts);
  std::set<DocumentId> ids;
  for (const size_t d : wanted) ids.insert(ids_[d]);
  return ids;
}

NeedleResult run_needles(Context& context, const Model& model, const NeedleTask& task, Haystack& haystack,
                         const NeedleOptions& options, const std::function<void()>& progress) {
  NeedleResult result;
  result.task = task.name;
  std::mt19937_64 random(options.seed);
  Generator generator(model, haystack.bank(), {}, haystack.ranks());
  for (int i = 0; i < options.samples; ++i) {
    const std::vector<int> depths = draw_depths(task, i, random);
    const NeedleSample sample = draw_needles(
        task, depths, [&](const std::string& key) { return haystack.has_key(key); }, random);
    const std::set<DocumentId> wanted = haystack.place(sample);
    const Answer answer = generator.ask(context, sample.question, options.ask);
    std::vector<DocumentId> fetched, routed;
    for (const FetchedDocument& d : answer.documents) fetched.push_back(d.id);
    for (const RoutedDocument& d : answer.hops.front().routed) routed.push_back(d.id);
    result.scores.add(std::vector{match_all(answer.text, sample.answers), share_of(wanted, fetched),
                                  share_of(wanted, routed), answer.total_ms});
    if (depths.size() == 1) result.depths.push_back(depths.front());
    result.predictions.push_back(answer.text);
    if (progress) progress();
  }
  const BankStatistics statistics = haystack.bank().statistics();
  result.bank_tokens = statistics.tokens;
  result.bank_documents = statistics.documents;
  return result;
}

Json to_json(const NeedleResult& result, const Bootstrap& bootstrap) {
  Json out = {{"task", result.task},
              {"tokens", result.tokens},
              {"bank", {{"tokens", result.bank_tokens}, {"documents", result.bank_documents}}},
              {"samples", result.scores.rows()},
              {"metrics", result.scores.summary(bootstrap)}};
  std::map<int, std::pair<std::vector<double>, int>> by_depth;  // sums of the columns, samples
  for (size_t i = 0; i < result.depths.size(); ++i) {
    auto& [sums, n] = by_depth[result.depths[i]];
    sums.resize(kNeedleColumns.size());
    for (size_t c = 0; c < sums.size(); ++c) sums[c] += result.scores.row(i)[c];
    ++n;
  }
  for (const auto& [depth, cell] : by_depth) {
    for (size_t c = 0; c + 1 < kNeedleColumns.size(); ++c) {
      out["depths"][std::to_string(depth)][kNeedleColumns[c]] = cell.first[c] / cell.second;
    }
  }
  return out;
}

}  // namespace msa::eval
