// The [data] part of a training recipe: which sets, how often, how long, how many.
#pragma once
#include <cstdint>
#include <string>
#include <vector>

#include "train/data/toml_fields.h"

namespace msa::train {

/// A value that changes at given steps.
template <class T>
struct Schedule {
  struct Phase {
    int64_t from_step = 0;
    T value;
  };
  std::vector<Phase> phases;  // the first from step 0, then ascending

  const T& at(int64_t step) const {
    size_t i = phases.size() - 1;
    while (i > 0 && phases[i].from_step > step) --i;
    return phases[i].value;
  }
};

/// A number that is drawn: of attended documents each step, of distractors for each sample.
struct NumberChoice {
  std::vector<int64_t> values;
  std::vector<double> shares;  // one for each value
};

/// One [[data.sets]]: a BEIR folder, or its questions of some types.
struct SetRecipe {
  std::string folder;
  double weight = 1;               // share of the questions, and of the documents that fill the pool
  double retrieve = 1;             // of its questions: the share that asks for documents …
  double answer = 1;               // … and the share that reads and answers
  std::vector<std::string> types;  // of the questions taken; empty: all
  bool reading_only = false;       // its questions do not tell documents apart: no routing loss
  bool counterfactual = false;     // its texts contradict the world: reading only, too
  bool titles = true;              // false: the documents are encoded without their titles
  double rerank = 1;               // share of its questions among those whose candidates are judged, beside its weight
  double search_style = 0;         // share of its routing questions rewritten as typed into a search box …
  double answer_search_style = 0;  // … and of those answered, which keep all their words
  bool ignore_answers = false;     // a document that holds an answer is not a negative
  std::string hard_negatives;      // file: query-id, corpus-id; may be empty
  std::string teacher;             // file: query-id, corpus-id, score; may be empty
  std::string teacher_vectors;     // file of a dense teacher instead; may be empty
  double teacher_lexical = 0;      // of BM25 in the dense teacher's scores
};

struct DataRecipe {
  std::vector<SetRecipe> sets;
  std::string corpus;            // folder with documents alone, for filling and plain text; may be empty
  double corpus_weight = 1;      // beside the weights of the sets, when the pool is filled
  double language_share = 0;     // of the samples
  double reconstruct_share = 0;  // of the samples
  double read_share = 0;         // of the samples that answer: from the fetched documents alone, no memory
  int64_t reconstruct_tokens = 32;

  int64_t samples = 96;  // in a step
  int64_t max_sample_tokens = 1024;
  int64_t max_document_tokens = 1024;
  int id_digits = 4;
  int64_t neighbours = 1;                   // documents of the gold one's article, per question
  int64_t hard_negatives_per_question = 2;  // from the set's file
  int64_t rerank_questions = 0;             // in a step, whose candidates are judged: kRerank, beside the samples
  int64_t rerank_negatives = 5;             // wrong candidates of each
  double held_out = 0.02;                   // share of the questions
  Schedule<int64_t> pool_tokens;            // with gradient
  Schedule<int64_t> extra_tokens;           // of further documents, forward only
  Schedule<NumberChoice> top_k;
  Schedule<NumberChoice> distractors;  // wrong documents fetched beside the gold ones of each hop: kAnswer
};

/// `data`: the [data] table. Relative paths are taken from `root`. Throws Error for an unknown field, a wrong type or a
/// value out of range.
DataRecipe parse_data_recipe(const TomlFields& data, const std::string& root);

}  // namespace msa::train
