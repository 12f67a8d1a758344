// The BEIR folder that make_data writes.
#pragma once
#include <string>
#include <vector>

#include "io/beir.h"
#include "train/make_data/make_data.h"

namespace msa::train {

struct FinishedQuestion {
  std::string id;
  Question question;
  bool is_removed = false;              // inverse cloze: the sentence is not in the document any more
  std::vector<int32_t> hard_negatives;  // documents, hardest first
};

/// What SOURCE says, "key: value" a line.
std::string source_note(const MakeDataOptions& options, const MakeDataReport& report);

void write_output(const std::string& folder, const std::vector<BeirDocument>& documents,
                  const std::vector<FinishedQuestion>& questions, const std::string& note);

}  // namespace msa::train
