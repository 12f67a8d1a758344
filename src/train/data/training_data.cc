#include "train/data/training_data.h"

#include <algorithm>
#include <map>
#include <string>
#include <utility>

#include "core/error.h"

namespace msa::train {
namespace {

class Loader {
 public:
  Loader(const DataRecipe& recipe, const Tokenizer& tokenizer, ThreadPool& pool)
      : recipe_(recipe), tokenizer_(tokenizer), pool_(pool) {}

  TrainingData load() {
    for (const SetRecipe& set : recipe_.sets) load_set(set);
    if (!recipe_.corpus.empty()) data_.corpus = dataset(recipe_.corpus, /*titles=*/true, /*corpus_alone=*/true);
    if (std::any_of(recipe_.sets.begin(), recipe_.sets.end(),
                    [](const SetRecipe& s) { return s.teacher_lexical > 0; })) {
      data_.lexical.emplace(data_.datasets, data_.vectors, tokenizer_);
    }
    return std::move(data_);
  }

 private:
  int32_t dataset(const std::string& folder, bool titles, bool corpus_alone) {
    const auto [it, is_new] =
        by_folder_.emplace(std::pair(folder, titles), static_cast<int32_t>(data_.datasets.size()));
    if (is_new) {
      data_.datasets.push_back(make_dataset(corpus_alone ? load_beir_corpus(folder) : load_beir(folder), tokenizer_,
                                            {recipe_.max_document_tokens, titles}, pool_));
      data_.vectors.emplace_back();
    }
    return it->second;
  }

  void load_set(const SetRecipe& recipe) {
    TrainingSet set;
    set.recipe = recipe;
    set.dataset = dataset(recipe.folder, recipe.titles, /*corpus_alone=*/false);
    const Dataset& data = data_.datasets[static_cast<size_t>(set.dataset)];
    set.split = split_questions(data, recipe.types, recipe_.held_out);
    check_questions(set, data);
    set.is_train.assign(data.questions.size(), 0);
    for (const int32_t q : set.split.train) set.is_train[static_cast<size_t>(q)] = 1;
    using Columns = ScoreTable::Columns;
    if (!recipe.hard_negatives.empty()) {
      set.hard_negatives = ScoreTable::load(recipe.hard_negatives, data, Columns::kScoresOptional);
    }
    if (!recipe.teacher.empty()) set.teacher = ScoreTable::load(recipe.teacher, data, Columns::kWithScores);
    if (!recipe.teacher_vectors.empty()) load_vectors(recipe.teacher_vectors, set.dataset);
    data_.sets.push_back(std::move(set));
  }

  /// Entries of one folder share documents, hence vectors.
  void load_vectors(const std::string& path, int32_t dataset) {
    const auto at = static_cast<size_t>(dataset);
    const auto [it, is_new] = vector_files_.emplace(dataset, path);
    if (!is_new && it->second != path) {
      throw Error("another entry of this folder has the vectors of " + it->second, path, "name one file in both");
    }
    if (!is_new) return;
    TeacherVectors& loaded = data_.vectors[at] = TeacherVectors::load(path, data_.datasets[at]);
    for (const TeacherVectors& other : data_.vectors) {
      if (other.empty() || (other.width() == loaded.width() && other.model() == loaded.model())) continue;
      throw Error("vectors of the model '" + loaded.model() + "', those of another set are of '" + other.model() + "'",
                  path, "make all files with one model");
    }
  }

  static void check_questions(const TrainingSet& set, const Dataset& data) {
    const std::string& folder = set.recipe.folder;
    for (const std::string& type : set.recipe.types) {
      const bool known = std::any_of(data.questions.begin(), data.questions.end(),
                                     [&](const BeirQuestion& question) { return question.type == type; });
      if (!known) throw Error("no question is of type '" + type + "'", folder, "mend \"types\" in the recipe");
    }
    if (set.split.train.empty()) throw Error("no question is left to train on", folder, "lower \"held_out\"");
    const auto has_answer = [&](int32_t q) { return !data.questions[static_cast<size_t>(q)].answers.empty(); };
    if (set.recipe.retrieve <= 0 && std::none_of(set.split.train.begin(), set.split.train.end(), has_answer)) {
      throw Error("no question has answers to train on", folder, "use the set for retrieval, or add \"answers\"");
    }
  }

  const DataRecipe& recipe_;
  const Tokenizer& tokenizer_;
  ThreadPool& pool_;
  TrainingData data_;
  std::map<std::pair<std::string, bool>, int32_t> by_folder_;  // and whether with titles
  std::map<int32_t, std::string> vector_files_;                // by dataset
};

}  // namespace

TrainingData load_training_data(const DataRecipe& recipe, const Tokenizer& tokenizer, ThreadPool& pool) {
  return Loader(recipe, tokenizer, pool).load();
}

}  // namespace msa::train
