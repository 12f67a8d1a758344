// Simple English clauses about a page's subject, and the questions that ask for a part of them.
#pragma once
#include <string>
#include <vector>

#include "train/make_data/page.h"
#include "train/make_data/random.h"

namespace msa::train {

/// "subject [adverb] verb rest".
struct Clause {
  std::string adverb;
  std::string verb;       // as written: was, played
  std::string auxiliary;  // goes before the subject in a question: was, did, does
  std::string base;       // goes behind it: play; empty where the verb is its own auxiliary
  Tokens rest;
};

/// The clauses of sentence `i` whose subject is the page's: none where the subject is another or the verb is unknown.
/// The first sentence ("X is a film directed by Y") gives one clause for each participle ("X was directed by Y").
std::vector<Clause> clauses_of(const Page& page, const Prose& prose, size_t i);

/// A part of a clause that a question can ask for.
struct Span {
  size_t begin = 0;  // tokens of the rest: the answer
  size_t end = 0;
  size_t body = 0;        // tokens [0, body) stay in the question
  size_t tail_begin = 0;  // and so do [tail_begin, tail_end)
  size_t tail_end = 0;
  std::string front = {};     // "In which year", "Which film", "Who"
  std::string in_place = {};  // the same where the span stood: "in which year", "which film"; empty: only in front
  int32_t document = -1;      // whose name the span is
};

std::vector<Span> spans_of(const Clause& clause, const Catalogue& catalogue);

struct Ask {
  std::string question;
  std::string answer;
};

/// Asks for the span. `subject` need not be the page's own name.
Ask ask(const Clause& clause, const Span& span, const std::string& subject, Random& random);

/// "subject verb rest", for the rest's first `n` tokens.
std::string state(const Clause& clause, const std::string& subject, size_t n);

/// First letter in upper case.
std::string capitalise(std::string text);

}  // namespace msa::train
