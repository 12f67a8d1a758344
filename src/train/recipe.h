// A training recipe: one TOML file that says everything about a run. docs/training.md describes every field.
#pragma once
#include <cstdint>
#include <string>
#include <vector>

#include "train/backbone.h"
#include "train/data/recipe.h"
#include "train/losses.h"

namespace msa::train {

struct ModelRecipe {
  std::string base;   // model directory or .gguf file; its tokenizer and template are used
  std::string start;  // adapter to go on from, or ""
  TrainedParts parts;
  std::string precision = "auto";  // of the products: f32, bf16, or bf16 on CUDA and f32 elsewhere
};

struct OptimizerRecipe {
  double adapter_rate = 1e-3, router_rate = 2e-3, weights_rate = 2e-5;
  double layer_weight_rate = 0;  // of the layers' weights in the mean score; 0: they stay as they are
  double beta1 = 0.9, beta2 = 0.98, epsilon = 1e-8, weight_decay = 0.01;
  double clip = 1.0;  // largest norm of all gradients together
  int64_t warmup_steps = 50;
  std::string schedule = "cosine";  // of the main phase: cosine, linear or constant
  double final_share = 0.05;        // of the rate, at the end
};

/// Warm-up phase L = 0.1·L_LM + L_aux, then main phase L = L_LM + 0.1·L_aux (paper section 3.3); the weights are free.
struct LossRecipe {
  RoutingLoss routing = RoutingLoss::kEquation5;
  double tau = 0.1;
  double warm_share = 0.3;  // of all steps
  double warm_lm = 0.1, warm_aux = 1.0, main_lm = 1.0, main_aux = 0.1;
  double cite_weight = 1;                   // of tokens that cite documents in L_LM; those of answers and texts weigh 1
  double mean_weight = 0, mean_tau = 0.05;  // the same loss on the mean of the layers' scores, beside it
  double distillation = 0, teacher_tau = 1.0;
  double late_weight = 0, late_tau = 0.02, late_distillation = 0;  // the same losses on the late scores
  double cited_weight = 0, cited_distillation = 0;  // on the sum of both scores, each over its temperature
  double rerank_weight = 1;                         // of the candidates' losses: data.rerank_questions
  double attend_gold = 1.0;  // probability at the first step that gold documents are attended whatever they score,
  double attend_gold_until = 0.2;  // falling to 0 at this share of all steps
};

struct EvaluationRecipe {
  struct Set {
    std::string folder;       // a BEIR set; of a training set only the held-out questions are asked
    int64_t questions = 200;  // at most
    int64_t documents = 0;    // at most, gold ones first; 0: all
    bool only_at_end = false;
  };
  std::vector<Set> sets;
  int64_t every = 500;  // steps; and at the end
};

struct RunRecipe {
  int64_t steps = 1000;
  double max_minutes = 0;  // 0: no limit; stops, saves, and can be resumed
  uint64_t seed = 1;
  bool deterministic = false;              // the same bits every time, slower on CUDA
  Recompute recompute = Recompute::kNone;  // what stage 1 keeps for the backward pass (large pools)
  std::string device = "auto";
  int batch_threads = 2;
  int64_t log_every = 10, save_every = 500;
  std::string output;             // folder: metrics.jsonl, checkpoint, exported adapter
  bool small_checkpoint = false;  // 3.5 bytes for each trained number instead of 12: resumes nearly, not exactly
};

struct Recipe {
  ModelRecipe model;
  OptimizerRecipe optimizer;
  LossRecipe loss;
  DataRecipe data;
  EvaluationRecipe evaluation;
  RunRecipe run;
  std::string text;  // the file as it is, copied into the output
};

/// Relative paths are taken from the recipe's folder. Throws Error with the line of what is wrong.
Recipe read_recipe(const std::string& path);

}  // namespace msa::train
