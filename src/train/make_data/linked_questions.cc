#include "train/make_data/linked_questions.h"

#include <algorithm>
#include <optional>
#include <utility>

#include "train/data/words.h"
#include "train/make_data/clause.h"
#include "train/make_data/text_questions.h"

namespace msa::train {
namespace {

constexpr size_t kMaxCellWords = 6;
constexpr size_t kMaxHeaderWords = 3;
constexpr size_t kMaxPerTable = 40;
constexpr size_t kMaxBridgesPerDocument = 3;
constexpr size_t kMaxPerPair = 2;
constexpr size_t kMaxRelativeWords = 4;

constexpr std::string_view kNamelessHeaders[] = {"name",  "title",   "work", "names",
                                                 "entry", "article", "item", "english title"};
constexpr std::string_view kUselessHeaders[] = {
    "notes",  "note", "ref", "refs",    "references", "remarks", "comments", "rank",  "carries",     "other",
    "number", "no.",  "no",  "details", "pos",        "result",  "image",    "photo", "description", "summary"};
// Headers that stand in "the … of X" for a thing X.
constexpr std::string_view kRoleHeaders[] = {
    "director",   "artist",       "winner",    "publisher",   "developer",    "author",  "writer",    "producer",
    "manager",    "captain",      "owner",     "coach",       "head coach",   "network", "studio",    "label",
    "composer",   "host",         "operator",  "constructor", "manufacturer", "trainer", "jockey",    "venue",
    "location",   "country",      "city",      "capital",     "headquarters", "county",  "province",  "region",
    "district",   "municipality", "stadium",   "party",       "architect",    "founder", "successor", "predecessor",
    "engine",     "platform",     "designer",  "home ground", "creator",      "league",  "college",   "school",
    "university", "hometown",     "home city", "chassis",     "language",     "state"};

struct Relation {
  std::string_view participle;
  std::string_view noun;
};
constexpr Relation kRelations[] = {{"directed", "director"},
                                   {"written", "writer"},
                                   {"created", "creator"},
                                   {"produced", "producer"},
                                   {"developed", "developer"},
                                   {"published", "publisher"},
                                   {"composed", "composer"},
                                   {"designed", "designer"},
                                   {"founded", "founder"},
                                   {"narrated", "narrator"},
                                   {"hosted", "host"},
                                   {"presented", "presenter"},
                                   {"painted", "painter"},
                                   {"built", "builder"},
                                   {"owned", "owner"},
                                   {"operated", "operator"},
                                   {"manufactured", "manufacturer"},
                                   {"distributed", "distributor"},
                                   {"coached", "coach"},
                                   {"invented", "inventor"}};
constexpr std::string_view kWorks[] = {"film", "song", "album", "novel", "book", "play", "opera", "series", "game"};

/// A header as it stands inside a sentence; empty where it cannot.
std::string header_phrase(const std::string& header) {
  Tokens t = tokenise(without_brackets(header));
  static constexpr std::string_view kPrepositions[] = {"from", "by", "of", "to", "in", "at", "for", "with", "on"};
  if (t.empty() || t.size() > kMaxHeaderWords) return "";
  for (Token& token : t) {
    if (token.after != 0) return "";
    const bool acronym = token.text.size() > 1 && is_capitalised(std::string_view(token.text).substr(1));
    if (!acronym && token.text[0] >= 'A' && token.text[0] <= 'Z') {
      token.text[0] = static_cast<char>(token.text[0] + 32);
    }
    if (!is_lower_word(token.text) && !acronym) return "";
  }
  std::string phrase = join(t);
  return is_one_of(phrase, kUselessHeaders) || is_one_of(t.back().text, kPrepositions) ? "" : phrase;
}

/// A cell as it stands inside a sentence; empty where it cannot.
std::string cell_phrase(const std::string& text) {
  const Tokens t = tokenise(without_brackets(text));
  if (t.empty() || t.size() > kMaxCellWords) return "";
  for (size_t i = 1; i < t.size(); ++i) {
    if (is_number(t[i].text) && is_number(t[i - 1].text) && t[i - 1].after == 0) return "";
  }
  std::string phrase = join(t);
  const bool plain = phrase.find_first_of("|/#*°†‡;:=+\"") == std::string::npos;
  return plain && count_words(phrase) > 0 ? phrase : "";
}

std::string table_name(const Table& table, Random& random) {
  std::string name = table.title.starts_with("List of ") ? "the list" + table.title.substr(4) : table.title;
  const size_t part = table.section.rfind(" -- ");
  const std::string section = part == std::string::npos ? table.section : table.section.substr(part + 4);
  if (!section.empty() && section.size() < 40 && random.chance(0.4)) name += " (" + section + ")";
  return name;
}

class LinkMaker {
 public:
  LinkMaker(const Corpus& corpus, const Table& table, Random& random, std::vector<Question>& out)
      : corpus_(corpus), table_(table), random_(random), out_(out) {
    for (const std::string& header : table.header) headers_.push_back(header_phrase(header));
  }

  void make(size_t row, size_t column) {
    const Cell& cell = table_.rows[row][column];
    if (cell.documents.size() != 1 || headers_[column].empty()) return;
    const int32_t document = cell.documents[0];
    const std::string answer = cell_phrase(cell.text);
    const std::string& words = corpus_.words[static_cast<size_t>(document)];
    if (answer.empty() || !contains_words(words, spaced_words(answer))) return;
    const std::vector<size_t> asked = conditions(row, column, answer, words);
    if (asked.empty() || !is_unique(row, column, asked)) return;
    std::string what = headers_[column];
    if (is_one_of(what, kNamelessHeaders)) what = corpus_.catalogue.page(document).type;
    if (what.empty()) return;
    std::vector<std::string> answers = {answer};
    const std::string& name = corpus_.catalogue.page(document).name;
    if (contains_words(spaced_words(name), spaced_words(answer)) && 2 * count_words(answer) < count_words(name)) return;
    if (!name.empty() && name != answer) answers.push_back(name);
    std::string text = phrase(row, what, asked);
    if (is_fair(text, answers))
      out_.push_back({QuestionKind::kLink, std::move(text), std::move(answers), {document}, {}});
  }

 private:
  /// One or two other columns: the first one's cell stands in the document too.
  std::vector<size_t> conditions(size_t row, size_t column, const std::string& answer, const std::string& words) {
    std::vector<size_t> supported;
    std::vector<size_t> others;
    for (size_t c = 0; c < headers_.size(); ++c) {
      if (c == column || headers_[c].empty() || headers_[c] == headers_[column]) continue;
      const std::string cell = cell_phrase(table_.rows[row][c].text);
      const std::string spaced = spaced_words(cell);
      if (cell.empty() || cell == answer) continue;
      const bool telling = spaced.size() > 4 && (is_capitalised(cell) || is_year(cell) || spaced.size() > 12);
      (telling && contains_words(words, spaced) ? supported : others).push_back(c);
    }
    if (supported.empty()) return {};
    std::vector<size_t> chosen = {take(supported)};
    std::vector<size_t>& rest = supported.empty() ? others : supported;
    if (!rest.empty() && random_.chance(0.8)) chosen.push_back(take(rest));
    return chosen;
  }

  size_t take(std::vector<size_t>& list) {
    const size_t at = random_.below(list.size());
    const size_t item = list[at];
    list.erase(list.begin() + static_cast<ptrdiff_t>(at));
    return item;
  }

  /// No other row has these cells and another answer.
  bool is_unique(size_t row, size_t column, const std::vector<size_t>& asked) const {
    const auto& own = table_.rows[row];
    return std::none_of(table_.rows.begin(), table_.rows.end(), [&](const std::vector<Cell>& other) {
      const bool same = std::all_of(asked.begin(), asked.end(), [&](size_t c) { return other[c].text == own[c].text; });
      return same && other[column].text != own[column].text;
    });
  }

  std::string phrase(size_t row, const std::string& what, const std::vector<size_t>& asked) {
    std::string is;            // "the year is 1997 and the label is EMI"
    bool reads_badly = false;  // "the founded is 1891"
    std::string with;          // "year 1997 and label EMI"
    for (const size_t c : asked) {
      const std::string cell = cell_phrase(table_.rows[row][c].text);
      const bool plural = headers_[c].ends_with('s') && !headers_[c].ends_with("ss");
      is += (is.empty() ? "the " : " and the ") + headers_[c] + (plural ? " are " : " is ") + cell;
      reads_badly = reads_badly || headers_[c].ends_with("ed") || headers_[c] == "serves";
      with += (with.empty() ? "" : " and ") + headers_[c] + " " + cell;
    }
    const std::string name = table_name(table_, random_);
    const std::string forms[] = {"In " + name + ", which " + what + " is listed with " + with + "?",
                                 "Which " + what + " is listed with " + with + " in " + name + "?",
                                 capitalise(name) + ": what is the " + what + " where " + is + "?",
                                 "In " + name + ", what is the " + what + " where " + is + "?",
                                 "Name the " + what + " in " + name + " where " + is + "."};
    return forms[random_.below(reads_badly ? 2 : std::size(forms))];
  }

  const Corpus& corpus_;
  const Table& table_;
  Random& random_;
  std::vector<Question>& out_;
  std::vector<std::string> headers_;
};

/// "the film X": what a question calls a document that is known by name.
std::string named(const Page& page, Random& random) {
  const bool says_itself =
      page.name.find(page.noun) != std::string::npos || page.subject.starts_with("the ") || page.subject.ends_with(')');
  if (page.noun.empty() || says_itself || !is_one_of(page.noun, kWorks) || random.chance(0.5)) return page.subject;
  return "the " + page.noun + " " + page.subject;
}

/// What a question calls the document that the span names, by way of the clause about `page`.
std::string described(const Corpus& corpus, const Page& page, const Clause& clause, const Span& span, Random& random) {
  const std::string name = named(page, random);
  const Tokens& rest = clause.rest;
  if (clause.base == "have" || span.body > kMaxRelativeWords) return "";
  if (span.front == "Where") {
    const std::string word = clause.base == "die" ? "died" : span.body > 0 ? rest[span.body - 1].text : "";
    if (word == "born") return "the birthplace of " + name;
    return "the place where " + state(clause, name, span.body);
  }
  if (span.body >= 2 && rest[span.body - 1].text == "by") {
    if (page.is_person) return "";
    for (const Relation& relation : kRelations) {
      if (rest[span.body - 2].text == relation.participle) return "the " + std::string(relation.noun) + " of " + name;
    }
  }
  const Page& other = corpus.catalogue.page(span.document);
  const std::string what = other.type.empty() ? (other.is_person ? "person" : "") : other.type;
  return what.empty() ? "" : "the " + what + " that " + state(clause, name, span.body);
}

/// "the birthplace of X": to ask where it is makes little sense.
bool names_a_place(const std::string& subject) {
  static constexpr std::string_view kBegins[] = {"the place ",        "the birthplace ", "the location ", "the venue ",
                                                 "the headquarters ", "the hometown ",   "the home city "};
  return std::any_of(std::begin(kBegins), std::end(kBegins),
                     [&](std::string_view begin) { return subject.starts_with(begin); });
}

/// Questions about document `second`, which they call `subject`, reached by way of document `first`.
void ask_hops(const Corpus& corpus, int32_t first, int32_t second, const std::string& subject, Random& random,
              std::vector<Question>& out) {
  const auto at = static_cast<size_t>(second);
  const Page& page = corpus.catalogue.page(second);
  const std::string name = spaced_words(page.name);
  if (first == second || page.name.empty() || contains_words(spaced_words(subject), name)) return;
  const Source source{corpus.catalogue, corpus.documents[at], second};
  const Prose prose = read_prose(source.document.text);
  std::vector<Question> asked;
  ask_first_sentence(source, prose, subject, random, asked);
  for (const Clause& clause : prose.tokens.empty() ? std::vector<Clause>() : clauses_of(page, prose, 0)) {
    for (const Span& span : spans_of(clause, corpus.catalogue)) {
      Ask part = ask(clause, span, subject, random);
      asked.push_back({QuestionKind::kBridge, std::move(part.question), {std::move(part.answer)}, {second}, {}});
    }
  }
  const bool names_place = names_a_place(subject);
  std::erase_if(asked, [&](const Question& question) {
    if (names_place && (question.text.starts_with("Where") || question.text.find(" place ") < 10)) return true;
    const auto in_first = [&](const std::string& answer) {
      return contains_words(corpus.words[static_cast<size_t>(first)], spaced_words(answer));
    };
    return contains_words(spaced_words(question.text), name) || !is_fair(question.text, question.answers) ||
           std::any_of(question.answers.begin(), question.answers.end(), in_first);
  });
  const auto asks_kind = [&](const Question& question) { return question.answers[0] == page.predicate; };
  const bool all_ask_kind = std::all_of(asked.begin(), asked.end(), asks_kind);
  if (!all_ask_kind && random.chance(0.8)) std::erase_if(asked, asks_kind);
  keep_some(asked, 0, kMaxPerPair, random);
  for (Question& question : asked) {
    question.kind = QuestionKind::kBridge;
    question.gold = {first, second};
    out.push_back(std::move(question));
  }
}

/// The first column whose cells mostly link to one document: what the rows are about. -1: none.
std::optional<size_t> main_column(const Table& table) {
  for (size_t c = 0; c < table.header.size(); ++c) {
    size_t linked = 0;
    for (const auto& row : table.rows) linked += row[c].documents.size() == 1;
    if (2 * linked >= table.rows.size() && linked > 0) return c;
  }
  return std::nullopt;
}

}  // namespace

void make_links(const Corpus& corpus, const Table& table, Random& random, std::vector<Question>& out) {
  const size_t before = out.size();
  LinkMaker maker(corpus, table, random, out);
  for (size_t row = 0; row < table.rows.size(); ++row) {
    for (size_t column = 0; column < table.header.size(); ++column) maker.make(row, column);
  }
  keep_some(out, before, kMaxPerTable, random);
}

void make_table_bridges(const Corpus& corpus, const Table& table, Random& random, std::vector<Question>& out) {
  const auto main = main_column(table);
  if (!main) return;
  const size_t before = out.size();
  for (size_t column = 0; column < table.header.size(); ++column) {
    const std::string role = header_phrase(table.header[column]);
    if (column == *main || !is_one_of(role, kRoleHeaders)) continue;
    for (const auto& row : table.rows) {
      if (row[*main].documents.size() != 1 || row[column].documents.size() != 1) continue;
      const int32_t first = row[*main].documents[0];
      const int32_t second = row[column].documents[0];
      const Page& page = corpus.catalogue.page(first);
      const std::string name = spaced_words(corpus.catalogue.page(second).name);
      if (page.subject.empty() || page.is_person) continue;
      if (!contains_words(corpus.words[static_cast<size_t>(first)], name)) continue;
      ask_hops(corpus, first, second, "the " + role + " of " + named(page, random), random, out);
    }
  }
  keep_some(out, before, kMaxPerTable, random);
}

void make_text_bridges(const Corpus& corpus, int32_t document, Random& random, std::vector<Question>& out) {
  const Page& page = corpus.catalogue.page(document);
  if (page.subject.empty()) return;
  const Prose prose = read_prose(corpus.documents[static_cast<size_t>(document)].text);
  const size_t before = out.size();
  for (size_t i = 0; i < prose.tokens.size(); ++i) {
    for (const Clause& clause : clauses_of(page, prose, i)) {
      for (const Span& span : spans_of(clause, corpus.catalogue)) {
        if (span.document < 0) continue;
        const std::string subject = described(corpus, page, clause, span, random);
        if (!subject.empty()) ask_hops(corpus, document, span.document, subject, random, out);
      }
    }
  }
  keep_some(out, before, kMaxBridgesPerDocument, random);
}

}  // namespace msa::train
