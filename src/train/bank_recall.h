// Recall over a whole bank of documents never seen in a pool together: the figure that counts (in-pool recall
// misleads).
#pragma once
#include <torch/torch.h>

#include <string>
#include <vector>

#include "tokenizer/template.h"
#include "train/data/dataset.h"
#include "train/network.h"

namespace msa::train {

struct BankRecall {
  std::string set;
  int64_t documents = 0, questions = 0, tokens = 0;
  double at_1 = 0, at_5 = 0, at_16 = 0, at_100 = 0;  // mean share of a question's gold documents found
  // Share of questions with a gold document first, or among the first 3, when the documents that the engine attends to
  // are ranked by mean score / mean_tau + late score / late_tau, as it cites them.
  double id_1 = 0, id_3 = 0;
  double seconds = 0;
};

struct RecallOptions {
  double mean_tau = 0.05, late_tau = 0.02;
  torch::Device device = torch::kCPU;
};

struct BankQuestions {
  const Dataset* dataset = nullptr;
  std::vector<int32_t> documents;  // of the bank, indices into the dataset
  std::vector<int32_t> questions;  // indices into the dataset; their gold lies in the bank
};

/// Encodes the bank with the weights as they are, routes every question as the engine would (mean score over layers).
BankRecall measure_recall(const Network& network, const NetworkTensors& w, const PromptTemplate& prompts,
                          const BankQuestions& bank, const RecallOptions& options);

/// The first `max_questions` of `candidates`, and their gold documents with others up to `max_documents` (0: all).
BankQuestions choose_bank(const Dataset& dataset, const std::vector<int32_t>& candidates, int64_t max_questions,
                          int64_t max_documents);

}  // namespace msa::train
