#include "train/data/recipe.h"

#include <algorithm>
#include <filesystem>
#include <functional>
#include <numeric>

#include "io/file.h"

namespace msa::train {
namespace {

constexpr int64_t kMaxTokens = int64_t{1} << 27;
constexpr int64_t kMaxStep = int64_t{1} << 40;
constexpr double kMaxWeight = 1e6;
constexpr size_t kMaxRecipeBytes = 16 << 20;

std::string resolved(const std::string& path, const std::string& root) {
  return path.empty() ? path : (std::filesystem::path(root) / path).lexically_normal().string();
}

/// Either one value, or a list of tables with `from` and what `read` takes from each.
template <class T>
Schedule<T> read_phases(const TomlFields& fields, const char* key, const std::function<T(const TomlFields&)>& read) {
  Schedule<T> schedule;
  for (const TomlFields& phase : fields.tables(key)) {
    const int64_t from = phase.need_integer("from", 0, kMaxStep);
    if (schedule.phases.empty() ? from != 0 : from <= schedule.phases.back().from_step) {
      phase.refuse("from", "phases begin with step 0 and ascend");
    }
    schedule.phases.push_back({from, read(phase)});
  }
  if (schedule.phases.empty()) fields.refuse(key, "there is no phase");
  return schedule;
}

Schedule<int64_t> read_tokens(const TomlFields& fields, const char* key, int64_t otherwise, int64_t least) {
  if (!fields.has(key) || !fields.need(key).is_array()) {
    return {{{0, fields.integer(key, otherwise, least, kMaxTokens)}}};
  }
  return read_phases<int64_t>(fields, key, [&](const TomlFields& phase) {
    phase.allow_only({"from", "tokens"});
    return phase.need_integer("tokens", least, kMaxTokens);
  });
}

/// A number, or phases of values drawn by their shares.
Schedule<NumberChoice> read_choices(const TomlFields& fields, const char* key, int64_t otherwise, int64_t least) {
  constexpr int64_t kMost = 4096;
  if (!fields.has(key) || !fields.need(key).is_array()) {
    return {{{0, {{fields.integer(key, otherwise, least, kMost)}, {1.0}}}}};
  }
  return read_phases<NumberChoice>(fields, key, [&](const TomlFields& phase) {
    phase.allow_only({"from", "values", "shares"});
    NumberChoice choice{phase.integers("values", least, kMost), phase.numbers("shares", 0, kMaxWeight)};
    if (choice.values.empty()) phase.refuse("values", "there is no value");
    if (!phase.has("shares")) choice.shares.assign(choice.values.size(), 1.0);
    if (choice.shares.size() != choice.values.size()) phase.refuse("shares", "must hold one share for each value");
    if (std::accumulate(choice.shares.begin(), choice.shares.end(), 0.0) <= 0) {
      phase.refuse("shares", "one share must be above 0");
    }
    return choice;
  });
}

SetRecipe read_set(const TomlFields& fields, const std::string& root) {
  fields.allow_only({"folder", "weight", "retrieve", "answer", "rerank", "types", "reading_only", "counterfactual",
                     "titles", "search_style", "answer_search_style", "ignore_answers", "hard_negatives", "teacher",
                     "teacher_vectors", "teacher_lexical"});
  SetRecipe set;
  set.folder = resolved(fields.need_string("folder"), root);
  set.weight = fields.number("weight", 1, 0, kMaxWeight);
  set.counterfactual = fields.flag("counterfactual", false);
  set.reading_only = fields.flag("reading_only", false) || set.counterfactual;
  set.retrieve = fields.number("retrieve", set.reading_only ? 0 : 1, 0, kMaxWeight);
  set.answer = fields.number("answer", 1, 0, kMaxWeight);
  set.rerank = fields.number("rerank", set.reading_only ? 0 : 1, 0, kMaxWeight);
  set.types = fields.strings("types");
  set.titles = fields.flag("titles", true);
  set.search_style = fields.number("search_style", 0, 0, 1);
  set.answer_search_style = fields.number("answer_search_style", 0, 0, 1);
  set.ignore_answers = fields.flag("ignore_answers", false);
  set.hard_negatives = resolved(fields.string("hard_negatives", ""), root);
  set.teacher = resolved(fields.string("teacher", ""), root);
  set.teacher_vectors = resolved(fields.string("teacher_vectors", ""), root);
  set.teacher_lexical = fields.number("teacher_lexical", 0, 0, kMaxWeight);
  if (set.teacher_lexical > 0 && set.teacher_vectors.empty()) {
    fields.refuse("teacher_lexical", "is added to a dense teacher's scores", "name its teacher_vectors");
  }
  if (set.reading_only && set.retrieve > 0) {
    fields.refuse("retrieve", "a set that is only read has nothing to retrieve", "leave the field out");
  }
  if (set.reading_only && set.rerank > 0) {
    fields.refuse("rerank", "the questions of a set that is only read do not tell documents apart", "leave it out");
  }
  if (set.retrieve + set.answer <= 0) fields.refuse("answer", "retrieve and answer are both 0");
  if (set.reading_only && !set.teacher.empty()) fields.refuse("teacher", "a set that is only read has no teacher");
  if (!set.teacher.empty() && !set.teacher_vectors.empty()) {
    fields.refuse("teacher_vectors", "a set has one teacher", "leave out this field or teacher");
  }
  return set;
}

void check(const DataRecipe& recipe, const TomlFields& fields) {
  if (recipe.sets.empty()) fields.refuse("sets", "there is no set", "add a [[data.sets]] with a folder");
  const bool any = std::any_of(recipe.sets.begin(), recipe.sets.end(), [](const SetRecipe& s) { return s.weight > 0; });
  if (!any) fields.refuse("sets", "every weight is 0");
  if (recipe.language_share + recipe.reconstruct_share >= 1) {
    fields.refuse("language_share", "language_share and reconstruct_share leave no room for questions");
  }
  if (recipe.rerank_questions > 0 && std::all_of(recipe.sets.begin(), recipe.sets.end(),
                                                 [](const SetRecipe& s) { return s.weight * s.rerank == 0; })) {
    fields.refuse("rerank_questions", "no set has questions for them", "raise the rerank of a set");
  }
  for (const auto& phase : recipe.pool_tokens.phases) {
    if (phase.value < 2 * recipe.max_document_tokens) {
      fields.refuse("pool_tokens", "must be at least twice max_document_tokens");
    }
  }
}

}  // namespace

toml::table read_toml(const std::string& path) {
  const std::string text = read_file(path, kMaxRecipeBytes);
  try {
    return toml::parse(text, path);
  } catch (const toml::parse_error& error) {
    const auto at = error.source().begin;
    throw Error("broken TOML: " + std::string(error.description()),
                path + ":" + std::to_string(at.line) + ":" + std::to_string(at.column));
  }
}

DataRecipe parse_data_recipe(const TomlFields& fields, const std::string& root) {
  fields.allow_only({"sets",
                     "corpus",
                     "corpus_weight",
                     "language_share",
                     "reconstruct_share",
                     "reconstruct_tokens",
                     "read_share",
                     "samples",
                     "max_sample_tokens",
                     "max_document_tokens",
                     "id_digits",
                     "neighbours",
                     "hard_negatives_per_question",
                     "rerank_questions",
                     "rerank_negatives",
                     "held_out",
                     "pool_tokens",
                     "extra_tokens",
                     "top_k",
                     "distractors"});
  DataRecipe recipe;
  for (const TomlFields& set : fields.tables("sets")) recipe.sets.push_back(read_set(set, root));
  recipe.corpus = resolved(fields.string("corpus", ""), root);
  recipe.corpus_weight = fields.number("corpus_weight", recipe.corpus_weight, 0, kMaxWeight);
  recipe.language_share = fields.number("language_share", recipe.language_share, 0, 1);
  recipe.reconstruct_share = fields.number("reconstruct_share", recipe.reconstruct_share, 0, 1);
  recipe.reconstruct_tokens = fields.integer("reconstruct_tokens", recipe.reconstruct_tokens, 1, kMaxTokens);
  recipe.read_share = fields.number("read_share", recipe.read_share, 0, 1);
  recipe.samples = fields.integer("samples", recipe.samples, 1, 1 << 20);
  recipe.max_sample_tokens = fields.integer("max_sample_tokens", recipe.max_sample_tokens, 16, kMaxTokens);
  recipe.max_document_tokens = fields.integer("max_document_tokens", recipe.max_document_tokens, 1, kMaxTokens);
  recipe.id_digits = static_cast<int>(fields.integer("id_digits", recipe.id_digits, 1, 9));
  recipe.neighbours = fields.integer("neighbours", recipe.neighbours, 0, 1024);
  recipe.hard_negatives_per_question =
      fields.integer("hard_negatives_per_question", recipe.hard_negatives_per_question, 0, 1024);
  recipe.rerank_questions = fields.integer("rerank_questions", recipe.rerank_questions, 0, 1 << 20);
  recipe.rerank_negatives = fields.integer("rerank_negatives", recipe.rerank_negatives, 1, 1024);
  recipe.held_out = fields.number("held_out", recipe.held_out, 0, 0.9);
  recipe.pool_tokens = read_tokens(fields, "pool_tokens", 1 << 15, 2);
  recipe.extra_tokens = read_tokens(fields, "extra_tokens", 0, 0);
  recipe.top_k = read_choices(fields, "top_k", 16, 1);
  recipe.distractors = read_choices(fields, "distractors", 0, 0);
  check(recipe, fields);
  return recipe;
}

}  // namespace msa::train
