#include "train/make_data/text_questions.h"

#include <algorithm>

#include "train/data/words.h"
#include "train/make_data/clause.h"

namespace msa::train {
namespace {

constexpr int64_t kMinQuestionWords = 3;
constexpr int64_t kMaxQuestionWords = 40;
constexpr int64_t kMinSentenceWords = 8;
constexpr int64_t kMaxSentenceWords = 45;
constexpr size_t kMinDocumentCharacters = 80;
constexpr size_t kMaxPerDocument = 3;
constexpr size_t kMaxVerbPhraseWords = 24;
constexpr size_t kMaxClozeTailWords = 10;

/// Words that tell one document from others: names, numbers.
size_t count_telling(const Tokens& t, size_t begin) {
  size_t n = 0;
  for (size_t i = begin; i < t.size(); ++i) {
    n += is_capitalised(t[i].text) || (t[i].text[0] >= '0' && t[i].text[0] <= '9');
  }
  return n;
}

/// "He was", "It has": a sentence that needs to know its subject.
bool begins_with_pronoun(const Tokens& t) {
  static constexpr std::string_view kPronouns[] = {"He",  "She",   "It",   "They",  "His", "Her",
                                                   "Its", "Their", "This", "These", "Both"};
  return !t.empty() && is_one_of(t.front().text, kPronouns);
}

/// Whether a reader who does not know the page can tell what the sentence is about.
bool stands_alone(const Page& page, const Tokens& t) {
  static constexpr std::string_view kPronouns[] = {"he", "she", "his", "her", "him", "they", "their", "this", "it"};
  const Tokens name = tokenise(page.name);
  bool has_pronoun = false;
  for (const Token& token : t) {
    const auto is_it = [&](const Token& word) { return word.text == token.text && word.text.size() > 3; };
    if (std::any_of(name.begin(), name.end(), is_it)) return true;
    has_pronoun = has_pronoun || is_one_of(token.text, kPronouns);
  }
  return !has_pronoun && count_telling(t, 1) >= 3;
}

/// The sentence with its leading "He", "Its" or "The film" replaced by the subject; empty where that is not possible.
std::string with_subject(const Page& page, const Tokens& t) {
  if (page.subject.empty() || t.size() < 2) return "";
  const std::string& first = t.front().text;
  if (first == "The" && !page.noun.empty() && t[1].text == page.noun && t[1].after == 0) {
    return capitalise(page.subject) + " " + join(t, 2, t.size()) + ".";
  }
  const std::string rest = join(t, 1, t.size());
  const bool of_person = first == "He" || first == "She" || first == "His" || first == "Her";
  if (of_person != page.is_person) return "";
  if (first == "He" || first == "She" || first == "It") return capitalise(page.subject) + " " + rest + ".";
  if (first == "His" || first == "Her" || first == "Its") return capitalise(page.subject) + "'s " + rest + ".";
  return "";
}

void add(const Source& source, QuestionKind kind, std::string text, std::vector<std::string> answers,
         std::vector<Question>& out) {
  if (is_fair(text, answers)) out.push_back({kind, std::move(text), std::move(answers), {source.number}, {}});
}

/// A sentence with the span left blank, up to a mark where it is long; empty where there is none.
std::string cloze(const Clause& clause, const Span& span, const std::string& subject, Random& random) {
  static constexpr std::string_view kFrames[] = {"Fill in the blank: ", "Complete the sentence: ", ""};
  const Tokens& rest = clause.rest;
  size_t end = rest.size();
  for (size_t i = span.end - 1; i < rest.size() && rest.size() > span.end + kMaxClozeTailWords; ++i) {
    if (rest[i].after != 0) {
      end = i + 1;
      break;
    }
  }
  if (end > span.end + kMaxClozeTailWords) return "";
  std::string text(random.pick(kFrames));
  text += capitalise(state(clause, subject, span.begin)) + " ____";
  if (end > span.end && rest[span.end - 1].after != 0) text += rest[span.end - 1].after;
  if (end > span.end) text += " " + join(rest, span.end, end);
  return text + ".";
}

std::string kind_question(const Page& page, const std::string& subject, Random& random) {
  const std::string be = page.copula == "was" ? "was " : "is ";
  const bool is_name = subject == page.subject;
  if (page.is_person) {
    const std::string forms[] = {"What " + be + subject + " by profession?",
                                 "What is the profession of " + subject + "?", "What is " + subject + " known as?",
                                 "Who " + be + subject + "?"};
    return forms[random.below(is_name ? 4 : 2)];
  }
  const bool says_kind = subject.starts_with("the " + page.noun + " ");
  if (!page.noun.empty() && !says_kind && random.chance(0.6))
    return "What kind of " + page.noun + " " + be + subject + "?";
  const std::string forms[] = {"How can " + subject + " be described?", "How would you describe " + subject + "?",
                               "What " + be + subject + "?", "What exactly " + be + subject + "?"};
  return forms[random.below(is_name ? 4 : 2)];
}

void ask_kind(const Source& source, const std::string& subject, Random& random, std::vector<Question>& out) {
  const Page& page = source.page();
  if (page.copula == "are" || page.copula == "were" || page.predicate.find(' ') == std::string::npos) return;
  std::vector<std::string> answers = {page.predicate};
  const bool says_enough = page.type.find(' ') != std::string::npos && page.type != page.predicate;
  if (says_enough) answers.push_back(page.type);
  add(source, QuestionKind::kTitle, kind_question(page, subject, random), std::move(answers), out);
}

void ask_dates(const Source& source, const std::string& subject, Random& random, std::vector<Question>& out) {
  const Page& page = source.page();
  if (!page.born.empty()) {
    const std::string forms[] = {"When was " + subject + " born?", "On what date was " + subject + " born?",
                                 "What is the date of birth of " + subject + "?"};
    add(source, QuestionKind::kTitle, random.pick(forms), {page.born}, out);
  }
  if (!page.died.empty()) {
    const std::string forms[] = {"When did " + subject + " die?", "On what date did " + subject + " die?",
                                 "What is the date of death of " + subject + "?"};
    add(source, QuestionKind::kTitle, random.pick(forms), {page.died}, out);
  }
}

/// "a town in Antón District, Panama": where it is.
void ask_where(const Source& source, const Prose& prose, const std::string& subject, Random& random,
               std::vector<Question>& out) {
  static constexpr std::string_view kPlaces[] = {
      "city",      "town",       "village",  "municipality", "river",        "lake",          "mountain", "station",
      "school",    "university", "college",  "museum",       "church",       "stadium",       "airport",  "island",
      "district",  "suburb",     "bridge",   "building",     "hotel",        "arena",         "park",     "settlement",
      "commune",   "county",     "hospital", "castle",       "theatre",      "house",         "temple",   "cathedral",
      "monastery", "parish",     "hamlet",   "township",     "neighborhood", "neighbourhood", "borough"};
  const Page& page = source.page();
  if (page.is_person || page.type.empty() || !is_one_of(page.noun, kPlaces)) return;
  const Tokens& t = prose.tokens.front();
  size_t i = page.copula_at + 1 + tokenise(page.type).size();
  if (i + 2 >= t.size() || t[i].text != page.noun || t[i].after != 0) return;
  if (t[i + 1].text == "located" || t[i + 1].text == "situated") ++i;
  if (t[i + 1].text != "in") return;
  const size_t begin = i + (t[i + 2].text == "the" ? 3 : 2);
  size_t end = begin;
  while (end < t.size() && is_capitalised(t[end].text)) {
    const bool goes_on = t[end].after == 0 && end + 2 < t.size() && t[end + 1].text == "of";
    end += goes_on && is_capitalised(t[end + 2].text) ? 2 : 1;
  }
  if (end == begin || (end < t.size() && t[end - 1].after == 0 && t[end].text == "and")) return;
  const std::string be = page.copula == "was" ? "was" : "is";
  const std::string forms[] = {"Where " + be + " " + subject + "?", "Where " + be + " " + subject + " located?",
                               "In what place " + be + " " + subject + " located?"};
  add(source, QuestionKind::kTitle, random.pick(forms), {join(t, begin, end)}, out);
}

/// "Which football manager played 14 seasons in the Primeira Liga?": the subject is the answer.
void ask_subject(const Source& source, const Prose& prose, Random& random, std::vector<Question>& out) {
  const Page& page = source.page();
  if (page.type.empty() || page.copula == "are" || page.copula == "were") return;
  const std::string own_words = spaced_words(page.name);
  for (size_t i = 1; i < prose.tokens.size(); ++i) {
    for (const Clause& clause : clauses_of(page, prose, i)) {
      if (clause.rest.size() < 5 || clause.rest.size() > kMaxVerbPhraseWords || count_telling(clause.rest, 0) < 2) {
        continue;
      }
      const std::string phrase = state(clause, "", clause.rest.size());
      bool leaks = false;
      for_each_word(phrase, [&](std::string_view word, int64_t characters) {
        const std::string spaced = std::string(" ").append(word).append(" ");
        leaks = leaks || (characters > 3 && own_words.find(spaced) != std::string::npos);
      });
      if (leaks) continue;
      const std::string relative = page.is_person ? " who " : " that ";
      const std::string forms[] = {
          "Which " + page.type + " " + phrase + "?", "What is the name of the " + page.type + relative + phrase + "?",
          "Name the " + page.type + relative + phrase + ".", "Which " + page.type + " " + phrase + "?"};
      add(source, QuestionKind::kTitle, random.pick(forms), {page.name}, out);
    }
  }
}

}  // namespace

bool is_fair(const std::string& question, const std::vector<std::string>& answers) {
  const std::string words = spaced_words(question);
  const int64_t n = std::count(words.begin(), words.end(), ' ') - 1;
  if (n < kMinQuestionWords || n > kMaxQuestionWords) return false;
  return std::none_of(answers.begin(), answers.end(), [&](const std::string& answer) {
    const std::string spaced = spaced_words(answer);
    return spaced.size() < 2 || contains_words(words, spaced);
  });
}

void make_inverse_cloze(const Source& source, Random& random, std::vector<Question>& out) {
  if (source.document.text.size() < kMinDocumentCharacters) return;
  const Prose prose = read_prose(source.document.text);
  if (prose.sentences.size() < 3) return;
  const Page& page = source.page();
  std::vector<Question> found;
  for (size_t i = 1; i < prose.sentences.size(); ++i) {
    const int64_t words = count_words(prose.sentences[i]);
    const Tokens& t = prose.tokens[i];
    if (words < kMinSentenceWords || words > kMaxSentenceWords || count_telling(t, 1) < 2) continue;
    std::string text = with_subject(page, t);
    if (text.empty() && (begins_with_pronoun(t) || !stands_alone(page, t))) continue;
    if (text.empty()) text = prose.sentences[i];
    found.push_back({QuestionKind::kInverseCloze, std::move(text), {}, {source.number}, prose.sentences[i]});
  }
  if (!found.empty()) out.push_back(std::move(found[random.below(found.size())]));
}

void make_fill_in(const Source& source, Random& random, std::vector<Question>& out) {
  if (source.document.text.size() < kMinDocumentCharacters) return;
  const Prose prose = read_prose(source.document.text);
  const Page& page = source.page();
  const size_t before = out.size();
  for (size_t i = 0; i < prose.tokens.size(); ++i) {
    for (const Clause& clause : clauses_of(page, prose, i)) {
      for (const Span& span : spans_of(clause, source.catalogue)) {
        Ask asked = ask(clause, span, page.subject, random);
        const std::string blank = cloze(clause, span, page.subject, random);
        if (!blank.empty() && random.chance(0.15)) asked.question = blank;
        add(source, QuestionKind::kFillIn, std::move(asked.question), {std::move(asked.answer)}, out);
      }
    }
  }
  keep_some(out, before, kMaxPerDocument, random);
}

void ask_first_sentence(const Source& source, const Prose& prose, const std::string& subject, Random& random,
                        std::vector<Question>& out) {
  ask_kind(source, subject, random, out);
  ask_dates(source, subject, random, out);
  ask_where(source, prose, subject, random, out);
}

void make_title(const Source& source, Random& random, std::vector<Question>& out) {
  const Page& page = source.page();
  if (page.subject.empty() || source.document.text.size() < kMinDocumentCharacters) return;
  const Prose prose = read_prose(source.document.text);
  const size_t before = out.size();
  ask_first_sentence(source, prose, page.subject, random, out);
  keep_some(out, before, 1, random);
  ask_subject(source, prose, random, out);
  keep_some(out, before, kMaxPerDocument, random);
}

}  // namespace msa::train
