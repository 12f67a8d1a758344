// Questions that one document answers, made from its text.
#pragma once
#include <vector>

#include "train/make_data/page.h"
#include "train/make_data/question.h"
#include "train/make_data/random.h"

namespace msa::train {

/// What the makers read: all of one document.
struct Source {
  const Catalogue& catalogue;
  const BeirDocument& document;
  int32_t number;  // of the document

  const Page& page() const { return catalogue.page(number); }
};

/// A sentence of the document as the question, a leading pronoun perhaps replaced by the document's name. At most one.
void make_inverse_cloze(const Source& source, Random& random, std::vector<Question>& out);

/// A date, number, place or name of a sentence about the document's subject asked for, or left blank.
void make_fill_in(const Source& source, Random& random, std::vector<Question>& out);

/// What the subject is, when it was born, or which subject it is of which a sentence speaks.
void make_title(const Source& source, Random& random, std::vector<Question>& out);

/// What the first sentence says of the subject: its kind, its dates, its place. The question calls the subject
/// `subject`, which is its name or not.
void ask_first_sentence(const Source& source, const Prose& prose, const std::string& subject, Random& random,
                        std::vector<Question>& out);

/// Whether the text may stand as a question: its words are neither too few nor too many, and it does not name an
/// answer.
bool is_fair(const std::string& question, const std::vector<std::string>& answers);

}  // namespace msa::train
