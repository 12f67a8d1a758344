#include "train/make_data/page.h"

#include <algorithm>

#include "train/data/words.h"

namespace msa::train {
namespace {

constexpr size_t kMaxSubjectWords = 12;
constexpr size_t kMaxPredicateWords = 14;
constexpr size_t kMaxTypeWords = 5;
constexpr std::string_view kCopulas[] = {"is", "was", "are", "were"};
constexpr std::string_view kEndOfPhrase[] = {
    "who",       "which",    "that",       "whose",     "where",  "when",  "while",   "because",
    "although",  "after",    "before",     "as",        "best",   "noted", "notable", "famous",
    "featuring", "starring", "consisting", "including", "known",  "since", "during",  "until",
    "under",     "through",  "about",      "between",   "within", "near",  "along",   "but"};
constexpr std::string_view kPrepositions[] = {"in", "of", "for", "from", "by", "at", "on", "to", "with", "and", "or"};
// "a type of", "the name of": the noun that matters comes later.
constexpr std::string_view kEmptyNouns[] = {
    "name", "type", "kind", "series", "list",  "number", "part",  "group", "set",    "form",    "member",
    "one",  "pair", "sort", "line",   "class", "family", "title", "term",  "result", "variety", "collection"};

std::string without_bracket_behind(const std::string& title) {
  const size_t open = title.rfind(" (");
  return open != std::string::npos && open > 0 && title.ends_with(')') ? title.substr(0, open) : title;
}

/// Whether what follows the noun phrase begins at token `i`: "created by", "predominantly spoken", "located".
bool begins_modifier(const Tokens& t, size_t i) {
  static constexpr std::string_view kAlways[] = {"located", "situated", "spoken",     "founded",
                                                 "born",    "split",    "established"};
  static constexpr std::string_view kIrregular[] = {"written", "built", "held", "set", "made", "played", "run"};
  static constexpr std::string_view kNouns[] = {"family", "assembly", "anomaly", "butterfly", "fly"};
  const std::string& word = t[i].text;
  if (is_one_of(word, kAlways)) return true;
  if (i + 1 >= t.size()) return false;
  const std::string& next = t[i + 1].text;
  const bool before_preposition = is_one_of(next, kPrepositions);
  if (word.ends_with("ly") && !is_one_of(word, kNouns)) {
    return before_preposition || is_one_of(next, kEndOfPhrase) || next.ends_with("ed") || next.ends_with("en");
  }
  return before_preposition && (word.ends_with("ed") || word.ends_with("ing") || is_one_of(word, kIrregular));
}

/// The end of the noun phrase that begins at `begin`.
size_t phrase_end(const Tokens& t, size_t begin, bool keep_prepositions) {
  size_t i = begin;
  for (; i < t.size(); ++i) {
    const std::string& word = t[i].text;
    if (i > begin && begins_modifier(t, i)) break;
    if ((i > begin && is_one_of(word, kEndOfPhrase)) || (!keep_prepositions && is_one_of(word, kPrepositions))) break;
    if (word == "-" || word == "–") break;
    if (word == "and" && i + 1 < t.size() && (t[i + 1].text == "the" || t[i + 1].text == "a")) break;
    const bool lists_places = t[i].after == ',' && i + 1 < t.size() && is_capitalised(word) &&
                              is_capitalised(t[i + 1].text) && keep_prepositions;
    if (t[i].after != 0 && !lists_places) {
      ++i;
      break;
    }
  }
  while (i > begin && is_one_of(t[i - 1].text, kPrepositions)) --i;
  return i;
}

/// Whether the noun phrase is whole where an "and" follows it: not so in "a media and entertainment company".
bool ends_at_conjunction(const Page& page, const Tokens& t, size_t end) {
  static constexpr std::string_view kPersonEndings[] = {"er", "or", "ist", "ian", "man", "ess", "ete", "ant"};
  if (t[end].text != "and" && t[end].text != "or") return true;
  const std::string& next = t[end + 1].text;
  if (next == "a" || next == "an" || next == "the" || next == "former") return true;
  return page.is_person && std::any_of(std::begin(kPersonEndings), std::end(kPersonEndings),
                                       [&](std::string_view ending) { return t[end - 1].text.ends_with(ending); });
}

void describe(Page& page, const Tokens& t, size_t article) {
  const size_t begin = article + 1;
  size_t end = phrase_end(t, begin, true);
  if (end - begin > kMaxPredicateWords) end = phrase_end(t, begin, false);
  if (end == begin || end - begin > kMaxPredicateWords) return;
  page.predicate = join(t, begin, end);
  if (t[article].text == "the") return;
  const size_t type_end = phrase_end(t, begin, false);
  if (type_end == begin || type_end - begin > kMaxTypeWords) return;
  const std::string& noun = t[type_end - 1].text;
  if (type_end + 1 < t.size() && t[type_end - 1].after == 0 && !ends_at_conjunction(page, t, type_end)) return;
  if (!is_lower_word(noun) || noun.find('-') != std::string::npos || is_one_of(noun, kEmptyNouns)) return;
  page.type = join(t, begin, type_end);
  page.noun = noun;
}

/// Whether the words before the copula name the page: half of the name's words are among them.
bool names_page(const Page& page, const Tokens& t, size_t end) {
  const Tokens name = tokenise(page.name);
  const auto is_there = [&](const Token& word) {
    return std::any_of(t.begin(), t.begin() + static_cast<ptrdiff_t>(end),
                       [&](const Token& x) { return x.text == word.text; });
  };
  const auto found = std::count_if(name.begin(), name.end(), is_there);
  return found > 0 && 2 * static_cast<size_t>(found) >= name.size();
}

void read_first_sentence(Page& page, const Tokens& t) {
  for (size_t i = 1; i + 2 < t.size() && i <= kMaxSubjectWords; ++i) {
    if (!is_one_of(t[i].text, kCopulas)) continue;
    if (!names_page(page, t, i)) return;
    page.copula = t[i].text;
    page.copula_at = i;
    const std::string& article = t[i + 1].text;
    if (article == "a" || article == "an" || article == "the") describe(page, t, i + 1);
    return;
  }
}

/// "(born 26 February 1951)", "(née Roe; April 20, 1951 - July 1, 2005)".
void read_dates(Page& page, std::string_view sentence) {
  const size_t open = sentence.find('(');
  const size_t close = sentence.find(')', open == std::string_view::npos ? 0 : open);
  if (open == std::string_view::npos || close == std::string_view::npos || open > 120) return;
  const Tokens t = tokenise(sentence.substr(open + 1, close - open - 1));
  std::vector<std::string> dates;
  bool says_born = false;
  bool has_dash = false;
  for (size_t i = 0; i < t.size();) {
    if (t[i].text == "born") says_born = true;
    if ((t[i].text == "-" || t[i].text == "–") && dates.size() == 1) has_dash = true;
    const size_t length = date_length(t, i);
    if (length == 3) dates.push_back(join(t, i, i + length));
    i += std::max<size_t>(length, 1);
  }
  if (dates.size() == 1 && says_born) page.born = dates[0];
  if (dates.size() == 2 && has_dash) {
    page.born = dates[0];
    page.died = dates[1];
  }
}

bool speaks_of_a_person(const Prose& prose) {
  int person = 0;
  int thing = 0;
  for (const Tokens& sentence : prose.tokens) {
    if (sentence.empty()) continue;
    const std::string& word = sentence.front().text;
    person += word == "He" || word == "She" || word == "His" || word == "Her";
    thing += word == "It" || word == "Its";
  }
  return thing == 0 && person > 0;
}

Page read_page(const BeirDocument& document) {
  Page page;
  page.name = without_bracket_behind(document.title);
  const Prose prose = read_prose(document.text);
  if (count_words(page.name) == 0) page.name.clear();
  if (page.name.empty() || prose.sentences.empty()) return page;
  read_dates(page, prose.sentences.front());
  page.is_person = !page.born.empty() || speaks_of_a_person(prose);
  read_first_sentence(page, prose.tokens.front());
  const bool with_article = document.text.starts_with("The " + page.name) && !page.name.starts_with("The ");
  page.subject = with_article ? "the " + page.name : page.name;
  return page;
}

}  // namespace

Prose read_prose(std::string_view text) {
  Prose prose;
  prose.sentences = split_sentences(text);
  for (const std::string_view sentence : prose.sentences) prose.tokens.push_back(tokenise(without_brackets(sentence)));
  return prose;
}

Catalogue::Catalogue(const std::vector<BeirDocument>& documents, ThreadPool& pool) : pages_(documents.size()) {
  pool.parallel_for(static_cast<int64_t>(documents.size()), 64, [&](int64_t begin, int64_t end, int) {
    for (auto i = static_cast<size_t>(begin); i < static_cast<size_t>(end); ++i) pages_[i] = read_page(documents[i]);
  });
  const auto enter = [&](const std::string& name, size_t document) {
    const auto entry = by_name_.emplace(name, static_cast<int32_t>(document)).first;
    if (entry->second != static_cast<int32_t>(document)) entry->second = -1;
  };
  for (size_t i = 0; i < pages_.size(); ++i) {
    if (pages_[i].name.empty()) continue;
    enter(pages_[i].name, i);
    enter(documents[i].title, i);
  }
  for (size_t i = 0; i < pages_.size(); ++i) {
    if (pages_[i].name.empty() || find(pages_[i].name) >= 0) continue;
    pages_[i].subject = find(documents[i].title) >= 0 ? documents[i].title : "";
  }
}

int32_t Catalogue::find(std::string_view name) const {
  const auto entry = by_name_.find(std::string(name));
  return entry == by_name_.end() ? -1 : entry->second;
}

}  // namespace msa::train
