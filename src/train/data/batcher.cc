#include "train/data/batcher.h"

#include <algorithm>
#include <cmath>
#include <iterator>
#include <optional>
#include <set>
#include <utility>

#include "core/error.h"
#include "train/data/pool.h"
#include "train/data/search_style.h"

namespace msa::train {
namespace {

constexpr double kGoldShare = 0.75;       // of the pool, at most: the rest are negatives of every sample
constexpr size_t kMaxCitedPerHop = 4;     // as the engine asks by default
constexpr int64_t kLeastTextTokens = 32;  // of a fetched text that had to be cut
constexpr int kNeighbourDistance = 3;     // in the corpus
constexpr int kMaxMisses = 64;            // in a row, before the pool counts as full

bool contains(std::span<const int32_t> text, std::span<const int32_t> part) {
  return !part.empty() && std::search(text.begin(), text.end(), part.begin(), part.end()) != text.end();
}

bool contains(std::span<const int32_t> list, int32_t value) {
  return std::find(list.begin(), list.end(), value) != list.end();
}

std::vector<int32_t> united(const std::vector<int32_t>& a, const std::vector<int32_t>& b) {
  std::vector<int32_t> all = a;
  for (const int32_t x : b) {
    if (!contains(all, x)) all.push_back(x);
  }
  return all;
}

}  // namespace

/// One batch in the making.
class Batcher::Draft {
 public:
  Draft(const Batcher& batcher, int64_t step)
      : b_(batcher),
        recipe_(batcher.recipe_),
        random_(batcher.seed_, static_cast<uint64_t>(step)),
        pool_tokens_(recipe_.pool_tokens.at(step)),
        extra_tokens_(recipe_.extra_tokens.at(step)),
        pool_(batcher.data_, batcher.prompts_, recipe_.id_digits, random_) {
    const NumberChoice& top_k = recipe_.top_k.at(step);
    batch_.top_k_documents = static_cast<int>(top_k.values[random_.weighted(top_k.shares)]);
    distractors_ = &recipe_.distractors.at(step);
  }

  Batch make() {
    const int64_t n_language = share_of_samples(recipe_.language_share);
    const int64_t n_reconstruct = share_of_samples(recipe_.reconstruct_share);
    draw_questions(std::max<int64_t>(1, recipe_.samples - n_language - n_reconstruct));
    add_neighbours();
    add_hard_negatives();
    fill(pool_tokens_);
    batch_.n_trained = pool_.size();
    if (extra_tokens_ > 0) fill(pool_tokens_ + extra_tokens_);
    for (int64_t i = 0; i < n_reconstruct; ++i) draw_reconstruction();
    for (int64_t i = 0; i < n_language; ++i) draw_language();
    draw_rerank_groups();
    finish();
    return std::move(batch_);
  }

 private:
  struct Drawn {
    Sample sample;
    const TrainingSet* set = nullptr;  // of a question
    int32_t question = -1;
    std::vector<int32_t> positives;    // documents of the pool
    std::vector<int32_t> distractors;  // the same
    bool asks_teacher = false;
  };
  /// A question with the documents that its sample needs.
  struct Plan {
    SampleKind kind = SampleKind::kRetrieve;
    std::vector<std::vector<int32_t>> hops;  // fetched before the sample's targets; documents of the set
    std::vector<int32_t> targets;            // to cite: kRetrieve
    std::vector<int32_t> positives;
    std::vector<int32_t> needed;       // in the pool
    std::vector<int32_t> distractors;  // wrong ones among the hops'

    void drop_distractor(int32_t document) {
      std::erase(distractors, document);
      for (std::vector<int32_t>& hop : hops) std::erase(hop, document);
    }
  };

  const Dataset& dataset(int32_t index) const { return b_.data_.datasets[static_cast<size_t>(index)]; }
  const Dataset& dataset_of(const TrainingSet& set) const { return dataset(set.dataset); }
  const BeirQuestion& question_of(const Drawn& drawn) const {
    return dataset_of(*drawn.set).questions[static_cast<size_t>(drawn.question)];
  }
  template <class T>
  const T& any_of(std::span<const T> items) {
    return items[static_cast<size_t>(random_.below(static_cast<int64_t>(items.size())))];
  }

  /// Rounded up or down at random, so that the mean over steps is exact.
  int64_t share_of_samples(double share) {
    return static_cast<int64_t>(static_cast<double>(recipe_.samples) * share + random_.uniform());
  }

  void draw_questions(int64_t count) {
    const int64_t tries = 16 * count + 64;
    for (int64_t i = 0; i < tries && static_cast<int64_t>(drawn_.size()) < count; ++i) {
      const TrainingSet& set = b_.data_.sets[random_.weighted(b_.question_weights_)];
      if (draw_question(set, any_of(std::span(set.split.train)))) continue;
      const int32_t asked_in_pool = question_in_pool(set);
      if (asked_in_pool >= 0) draw_question(set, asked_in_pool);
    }
    if (drawn_.empty()) {
      throw Error("no question fits with its documents", "data.sets",
                  "raise max_sample_tokens and pool_tokens, or lower max_document_tokens");
    }
  }

  /// A question about a document that is there already, or -1: a small pool holds many questions, if few documents.
  int32_t question_in_pool(const TrainingSet& set) {
    constexpr int kTries = 8;
    for (int i = 0; i < kTries && pool_.size() > 0; ++i) {
      const Pool::Entry& entry = pool_[static_cast<int32_t>(random_.below(pool_.size()))];
      if (entry.dataset != set.dataset) continue;
      const std::span<const int32_t> asked = dataset_of(set).questions_of(entry.document);
      if (asked.empty()) continue;
      const int32_t question = any_of(asked);
      if (set.is_train[static_cast<size_t>(question)] != 0) return question;
    }
    return -1;
  }

  bool draw_question(const TrainingSet& set, int32_t index) {
    if (used_.contains({set.dataset, index})) return false;
    const BeirQuestion& question = dataset_of(set).questions[static_cast<size_t>(index)];
    const double kinds[] = {set.recipe.retrieve, question.answers.empty() ? 0 : set.recipe.answer};
    if (kinds[0] + kinds[1] <= 0) return false;
    Plan plan = random_.weighted(kinds) == 0 ? plan_retrieval(question) : plan_answer(question);
    const auto budget = static_cast<int64_t>(kGoldShare * static_cast<double>(pool_tokens_));
    if (!pool_.add(set.dataset, plan.needed, budget)) return false;
    if (plan.kind != SampleKind::kRetrieve) add_distractors(set, index, plan);
    Drawn drawn;
    if (!write(set, question, plan, drawn.sample)) return false;
    drawn.set = &set;
    drawn.question = index;
    drawn.asks_teacher = plan.kind == SampleKind::kRetrieve && plan.hops.empty();
    for (const int32_t d : plan.distractors) drawn.distractors.push_back(pool_.find(set.dataset, d));
    if (!set.recipe.reading_only && plan.kind != SampleKind::kRead) {
      for (const int32_t d : plan.positives) drawn.positives.push_back(pool_.find(set.dataset, d));
    }
    drawn_.push_back(std::move(drawn));
    used_.insert({set.dataset, index});
    return true;
  }

  /// One hop of a chain, drawn at random; documents without order are all targets of the first hop.
  Plan plan_retrieval(const BeirQuestion& question) {
    Plan plan;
    if (question.hops.empty()) {
      plan.targets = plan.positives = plan.needed = question.gold;
      random_.shuffle(plan.targets);
      plan.targets.resize(std::min(plan.targets.size(), kMaxCitedPerHop));
      return plan;
    }
    const auto hop = static_cast<size_t>(random_.below(static_cast<int64_t>(question.hops.size())));
    for (size_t i = 0; i < hop; ++i) plan.hops.push_back({question.hops[i]});
    plan.targets = plan.positives = {question.hops[hop]};
    plan.needed.assign(question.hops.begin(), question.hops.begin() + static_cast<ptrdiff_t>(hop) + 1);
    return plan;
  }

  Plan plan_answer(const BeirQuestion& question) {
    Plan plan;
    plan.kind = SampleKind::kAnswer;
    if (recipe_.read_share > 0 && random_.uniform() < recipe_.read_share) plan.kind = SampleKind::kRead;
    plan.positives = plan.needed = united(question.gold, question.hops);
    for (const int32_t d : question.hops) plan.hops.push_back({d});
    if (plan.hops.empty()) {
      std::vector<int32_t> fetched = question.gold;
      random_.shuffle(fetched);
      fetched.resize(std::min(fetched.size(), kMaxCitedPerHop));
      plan.hops.push_back(std::move(fetched));
    }
    return plan;
  }

  /// Wrong documents to be fetched beside the gold ones, as a router that errs would: hard negatives first, then
  /// neighbours, then any of the set. Questions that do not tell documents apart get none.
  void add_distractors(const TrainingSet& set, int32_t index, Plan& plan) {
    const std::vector<int64_t>& values = distractors_->values;
    const int64_t wanted = values.size() == 1 ? values.front() : values[random_.weighted(distractors_->shares)];
    if (wanted == 0 || set.recipe.reading_only) return;
    const std::vector<int32_t> candidates = distractor_candidates(set, index);
    size_t next = 0;
    for (std::vector<int32_t>& hop : plan.hops) {
      const size_t full = std::min(hop.size() + static_cast<size_t>(wanted), kMaxCitedPerHop);
      while (hop.size() < full && next < candidates.size()) {
        const int32_t document = candidates[next++];
        if (contains(std::span(plan.distractors), document) || has_gold_words(set, plan, document)) continue;
        if (!pool_.add(set.dataset, {&document, 1}, pool_tokens_)) continue;
        plan.distractors.push_back(document);
        hop.push_back(document);
      }
      random_.shuffle(hop);
    }
  }

  /// Best ones first; none that may be right.
  std::vector<int32_t> distractor_candidates(const TrainingSet& set, int32_t index) {
    constexpr int kRandomOnes = 16;
    const Dataset& data = dataset_of(set);
    const BeirQuestion& question = data.questions[static_cast<size_t>(index)];
    std::vector<int32_t> all, near;
    for (const ScoredDocument& found : set.hard_negatives.of(index)) all.push_back(found.document);
    random_.shuffle(all);
    const int32_t gold = question.gold.front(), last = static_cast<int32_t>(data.articles.size()) - 1;
    for (int32_t d = std::max(0, gold - kNeighbourDistance); d <= std::min(last, gold + kNeighbourDistance); ++d) {
      if (data.articles[static_cast<size_t>(d)] == data.articles[static_cast<size_t>(gold)]) near.push_back(d);
    }
    random_.shuffle(near);
    all.insert(all.end(), near.begin(), near.end());
    for (int i = 0; i < kRandomOnes; ++i) {
      all.push_back(static_cast<int32_t>(random_.below(static_cast<int64_t>(data.articles.size()))));
    }
    std::erase_if(all, [&](int32_t d) { return is_right(question, d); });
    return all;
  }

  bool has_gold_words(const TrainingSet& set, const Plan& plan, int32_t document) const {
    const std::vector<uint64_t>& hashes = dataset_of(set).text_hashes;
    return std::any_of(plan.needed.begin(), plan.needed.end(), [&](int32_t gold) {
      return hashes[static_cast<size_t>(gold)] == hashes[static_cast<size_t>(document)];
    });
  }

  CitedDocument cited(const TrainingSet& set, int32_t document) const {
    const int32_t entry = pool_.find(set.dataset, document);
    return {pool_[entry].id, pool_.text(entry)};
  }

  std::vector<Hop> cited_hops(const TrainingSet& set, const Plan& plan) const {
    std::vector<Hop> hops;
    for (const std::vector<int32_t>& documents : plan.hops) {
      Hop& hop = hops.emplace_back();
      for (const int32_t d : documents) hop.push_back(cited(set, d));
    }
    return hops;
  }

  std::string in_search_style(const TrainingSet& set, const std::string& question) {
    const double share = set.recipe.search_style;
    return share > 0 && random_.uniform() < share ? search_style(question, random_) : question;
  }

  std::string in_answer_style(const TrainingSet& set, const std::string& question) {
    const double share = set.recipe.answer_search_style;
    return share > 0 && random_.uniform() < share ? all_words_in_search_style(question) : question;
  }

  /// False when the sample does not fit, even without distractors and with its texts cut.
  bool write(const TrainingSet& set, const BeirQuestion& question, Plan& plan, Sample& sample) {
    std::vector<Hop> hops = cited_hops(set, plan);
    std::vector<int64_t> targets;
    for (const int32_t d : plan.targets) targets.push_back(cited(set, d).id);
    const bool is_answer = plan.kind != SampleKind::kRetrieve;
    const std::string answer = is_answer ? any_of(std::span(question.answers)) : "";
    const std::string text = is_answer ? in_answer_style(set, question.text) : in_search_style(set, question.text);
    const auto build = [&] {
      if (plan.kind == SampleKind::kRead) return b_.builder_.read(text, hops, answer);
      return is_answer ? b_.builder_.answer(text, hops, answer) : b_.builder_.retrieve(text, hops, targets);
    };
    const auto is_long = [&] { return static_cast<int64_t>(sample.tokens.size()) > recipe_.max_sample_tokens; };
    sample = build();
    while (is_long() && !plan.distractors.empty()) {
      plan.drop_distractor(plan.distractors.back());
      hops = cited_hops(set, plan);
      sample = build();
    }
    if (!is_long()) return true;
    const int64_t excess = static_cast<int64_t>(sample.tokens.size()) - recipe_.max_sample_tokens;
    const bool was_there = is_answer && any_holds(hops, answer);
    if (!cut_texts(hops, tokens_of(hops) - excess, kLeastTextTokens)) return false;
    if (was_there && !any_holds(hops, answer)) return false;
    sample = build();
    return !is_long();
  }

  static int64_t tokens_of(const std::vector<Hop>& hops) {
    int64_t n = 0;
    for (const Hop& hop : hops) {
      for (const CitedDocument& document : hop) n += static_cast<int64_t>(document.text.size());
    }
    return n;
  }

  /// Answers as tokens, each within a sentence and after punctuation.
  std::vector<std::vector<int32_t>> forms(std::span<const std::string> answers) const {
    std::vector<std::vector<int32_t>> out;
    for (const std::string& answer : answers) {
      out.push_back(b_.tokenizer_.encode(" " + answer));
      out.push_back(b_.tokenizer_.encode(answer));
    }
    return out;
  }

  static bool holds_any(std::span<const int32_t> text, const std::vector<std::vector<int32_t>>& forms) {
    return std::any_of(forms.begin(), forms.end(), [&](const auto& form) { return contains(text, form); });
  }

  bool any_holds(const std::vector<Hop>& hops, const std::string& answer) const {
    const auto answers = forms({&answer, 1});
    for (const Hop& hop : hops) {
      for (const CitedDocument& document : hop) {
        if (holds_any(document.text, answers)) return true;
      }
    }
    return false;
  }

  void add_neighbours() {
    for (const Drawn& drawn : drawn_) {
      const std::vector<int32_t>& articles = dataset_of(*drawn.set).articles;
      const int32_t gold = question_of(drawn).gold.front();
      for (int64_t i = 0; i < recipe_.neighbours; ++i) {
        const int64_t distance = 1 + random_.below(kNeighbourDistance);
        const int64_t near = gold + (random_.below(2) == 0 ? distance : -distance);
        if (near < 0 || near >= static_cast<int64_t>(articles.size())) continue;
        const auto document = static_cast<int32_t>(near);
        if (articles[static_cast<size_t>(near)] != articles[static_cast<size_t>(gold)]) continue;
        pool_.add(drawn.set->dataset, {&document, 1}, pool_tokens_);
      }
    }
  }

  void add_hard_negatives() {
    for (const Drawn& drawn : drawn_) {
      const auto found = drawn.set->hard_negatives.of(drawn.question);
      std::vector<ScoredDocument> candidates(found.begin(), found.end());
      random_.shuffle(candidates);
      int64_t wanted = recipe_.hard_negatives_per_question;
      for (const ScoredDocument& candidate : candidates) {
        if (wanted == 0) break;
        if (is_right(question_of(drawn), candidate.document)) continue;
        if (pool_.add(drawn.set->dataset, {&candidate.document, 1}, pool_tokens_)) --wanted;
      }
    }
  }

  /// Labelled, or perhaps, an answer to the question.
  static bool is_right(const BeirQuestion& question, int32_t document) {
    return contains(std::span(question.gold), document) || contains(std::span(question.hops), document) ||
           contains(std::span(question.possible), document);
  }

  void fill(int64_t budget) {
    for (int misses = 0; misses < kMaxMisses;) {
      const auto set = static_cast<int32_t>(random_.weighted(b_.filler_weights_));
      const auto document = static_cast<int32_t>(random_.below(dataset(set).documents.size()));
      const int32_t before = pool_.size();
      pool_.add(set, {&document, 1}, budget);
      misses = pool_.size() > before ? 0 : misses + 1;
    }
  }

  void draw_reconstruction() {
    const auto document = static_cast<int32_t>(random_.below(batch_.n_trained));
    Drawn drawn;
    drawn.sample = b_.builder_.reconstruct(pool_[document].id, pool_.text(document), recipe_.reconstruct_tokens);
    if (static_cast<int64_t>(drawn.sample.tokens.size()) > recipe_.max_sample_tokens) return;
    drawn.positives = {document};
    drawn_.push_back(std::move(drawn));
  }

  void draw_language() {
    const int32_t corpus =
        b_.data_.corpus >= 0 ? b_.data_.corpus : static_cast<int32_t>(random_.weighted(b_.filler_weights_));
    const std::span<const int32_t> text = dataset(corpus).documents[random_.below(dataset(corpus).documents.size())];
    Drawn drawn;
    drawn.sample =
        b_.builder_.language(text.first(std::min(text.size(), static_cast<size_t>(recipe_.max_sample_tokens))));
    drawn_.push_back(std::move(drawn));
  }

  void draw_rerank_groups() {
    if (recipe_.rerank_questions == 0) return;
    batch_.rerank_starts = {static_cast<int64_t>(drawn_.size())};
    const int64_t tries = 4 * recipe_.rerank_questions;
    for (int64_t i = 0; i < tries && static_cast<int64_t>(batch_.rerank_starts.size()) <= recipe_.rerank_questions;
         ++i) {
      const TrainingSet& set = b_.data_.sets[random_.weighted(b_.rerank_weights_)];
      if (draw_rerank_group(set, any_of(std::span(set.split.train)))) {
        batch_.rerank_starts.push_back(static_cast<int64_t>(drawn_.size()));
      }
    }
  }

  /// One right candidate of a hop, then wrong ones. False, and nothing drawn, when one would not fit.
  bool draw_rerank_group(const TrainingSet& set, int32_t index) {
    const BeirQuestion& question = dataset_of(set).questions[static_cast<size_t>(index)];
    Plan plan = plan_retrieval(question);
    const TokenArrays& documents = dataset_of(set).documents;
    std::vector<int32_t> candidates{plan.targets.front()};  // drawn: plan_retrieval shuffles
    // Without an order any other gold document may have been fetched before.
    if (plan.targets.size() > 1 && random_.below(2) == 0) plan.hops.push_back({plan.targets[1]});
    std::vector<Hop> earlier;
    for (const std::vector<int32_t>& hop : plan.hops) {
      for (const int32_t d : hop) earlier.push_back({{0, documents[d]}});
    }
    const auto answers = set.recipe.ignore_answers ? forms(question.answers) : std::vector<std::vector<int32_t>>{};
    for (const int32_t d : distractor_candidates(set, index)) {
      if (static_cast<int64_t>(candidates.size()) > recipe_.rerank_negatives) break;
      if (contains(std::span(candidates), d) || has_gold_words(set, plan, d)) continue;
      if (holds_any(documents[d], answers)) continue;
      candidates.push_back(d);
    }
    const std::string text = in_search_style(set, question.text);
    std::vector<Drawn> group;
    for (const int32_t d : candidates) {
      group.emplace_back().sample = b_.builder_.rerank(text, earlier, documents[d]);
      if (static_cast<int64_t>(group.back().sample.tokens.size()) > recipe_.max_sample_tokens) return false;
    }
    if (group.size() < 2) return false;
    std::move(group.begin(), group.end(), std::back_inserter(drawn_));
    return true;
  }

  void finish() {
    batch_.tokens = pool_.sequences().tokens;
    batch_.starts = pool_.sequences().starts;
    batch_.sample_starts = batch_.positive_starts = batch_.ignored_starts = batch_.teacher_starts = {0};
    const PoolVectors vectors = vectors_of_pool();
    std::optional<LexicalTeacher::Pool> lexical;
    if (b_.data_.lexical) lexical.emplace(*b_.data_.lexical, documents_of_pool());
    const auto append = [](auto& all, const auto& more) { all.insert(all.end(), more.begin(), more.end()); };
    for (Drawn& drawn : drawn_) {
      append(batch_.sample_tokens, drawn.sample.tokens);
      append(batch_.routed, drawn.sample.routed);
      append(batch_.predicted, drawn.sample.predicted);
      batch_.sample_starts.push_back(static_cast<int64_t>(batch_.sample_tokens.size()));
      batch_.kinds.push_back(drawn.sample.kind);
      append(batch_.positives, drawn.positives);
      batch_.positive_starts.push_back(static_cast<int64_t>(batch_.positives.size()));
      append(batch_.ignored, ignored_by(drawn));
      batch_.ignored_starts.push_back(static_cast<int64_t>(batch_.ignored.size()));
      if (drawn.asks_teacher) append_teacher(drawn, vectors, lexical);
      batch_.teacher_starts.push_back(static_cast<int64_t>(batch_.teacher_documents.size()));
    }
  }

  /// Documents of the pool that are neither right nor wrong, ascending.
  std::vector<int32_t> ignored_by(const Drawn& drawn) const {
    std::set<int32_t> ignored;
    if (drawn.positives.empty()) return {};
    const auto add_with_its_words = [&](int32_t set, int32_t document) {
      const int32_t entry = pool_.find(set, document);
      if (entry >= 0) ignored.insert(entry);
      const auto same = pool_.same_text(dataset(set).text_hashes[static_cast<size_t>(document)]);
      ignored.insert(same.begin(), same.end());
    };
    for (const int32_t p : drawn.positives) add_with_its_words(pool_[p].dataset, pool_[p].document);
    if (drawn.set != nullptr) {
      const BeirQuestion& question = question_of(drawn);
      for (const auto* list : {&question.gold, &question.hops, &question.possible}) {
        for (const int32_t d : *list) add_with_its_words(drawn.set->dataset, d);
      }
      // Their fetched text routes, to themselves above all.
      for (const int32_t p : drawn.distractors) add_with_its_words(pool_[p].dataset, pool_[p].document);
      if (drawn.set->recipe.ignore_answers) add_holders_of_answers(question, ignored);
    }
    for (const int32_t p : drawn.positives) ignored.erase(p);
    return {ignored.begin(), ignored.end()};
  }

  void add_holders_of_answers(const BeirQuestion& question, std::set<int32_t>& ignored) const {
    const auto answers = forms(question.answers);
    for (int32_t i = 0; i < pool_.size(); ++i) {
      if (holds_any(pool_.text(i), answers)) ignored.insert(i);
    }
  }

  PoolVectors vectors_of_pool() const {
    const std::vector<TeacherVectors>& of_sets = b_.data_.vectors;
    const auto any = std::find_if(of_sets.begin(), of_sets.end(), [](const TeacherVectors& v) { return !v.empty(); });
    if (any == of_sets.end()) return {pool_.size(), 0};
    PoolVectors out(pool_.size(), any->width());
    for (int32_t i = 0; i < pool_.size(); ++i) {
      const TeacherVectors& vectors = of_sets[static_cast<size_t>(pool_[i].dataset)];
      if (!vectors.empty()) vectors.document(pool_[i].document, out.set(i));
    }
    return out;
  }

  std::vector<std::pair<int32_t, int32_t>> documents_of_pool() const {
    std::vector<std::pair<int32_t, int32_t>> out;
    for (int32_t i = 0; i < pool_.size(); ++i) out.emplace_back(pool_[i].dataset, pool_[i].document);
    return out;
  }

  void append_teacher(const Drawn& drawn, const PoolVectors& pool, std::optional<LexicalTeacher::Pool>& lexical) {
    const TeacherVectors& vectors = b_.data_.vectors[static_cast<size_t>(drawn.set->dataset)];
    if (!drawn.set->recipe.teacher_vectors.empty()) {
      std::vector<float> question(static_cast<size_t>(vectors.width()));
      vectors.question(drawn.question, question);
      const auto weight = static_cast<float>(drawn.set->recipe.teacher_lexical);
      std::vector<float> words(static_cast<size_t>(pool_.size()));  // 0 without a lexical teacher
      if (weight > 0) lexical->score(question_of(drawn).text, words);
      for (int32_t i = 0; i < pool_.size(); ++i) {
        if (!pool.has(i)) continue;
        batch_.teacher_documents.push_back(i);
        batch_.teacher_scores.push_back(pool.score(i, question) + weight * words[static_cast<size_t>(i)]);
      }
      return;
    }
    for (const ScoredDocument& scored : drawn.set->teacher.of(drawn.question)) {
      const int32_t entry = pool_.find(drawn.set->dataset, scored.document);
      if (entry < 0) continue;
      batch_.teacher_documents.push_back(entry);
      batch_.teacher_scores.push_back(scored.score);
    }
  }

  const Batcher& b_;
  const DataRecipe& recipe_;
  RandomStream random_;
  int64_t pool_tokens_, extra_tokens_;
  const NumberChoice* distractors_ = nullptr;
  Pool pool_;
  Batch batch_;
  std::vector<Drawn> drawn_;
  std::set<std::pair<int32_t, int32_t>> used_;  // (data set, question)
};

Batcher::Batcher(const DataRecipe& recipe, const TrainingData& data, const Tokenizer& tokenizer,
                 const PromptTemplate& prompts, uint64_t seed)
    : recipe_(recipe),
      data_(data),
      tokenizer_(tokenizer),
      prompts_(prompts),
      builder_(tokenizer, prompts),
      seed_(seed),
      filler_weights_(data.datasets.size(), 0.0) {
  for (const TrainingSet& set : data.sets) {
    question_weights_.push_back(set.recipe.weight);
    rerank_weights_.push_back(set.recipe.weight * set.recipe.rerank);
    filler_weights_[static_cast<size_t>(set.dataset)] += set.recipe.weight;
  }
  if (data.corpus >= 0) filler_weights_[static_cast<size_t>(data.corpus)] += recipe.corpus_weight;
}

Batch Batcher::make(int64_t step) const { return Draft(*this, step).make(); }

}  // namespace msa::train
