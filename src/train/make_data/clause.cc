#include "train/make_data/clause.h"

#include <algorithm>
#include <unordered_map>

namespace msa::train {
namespace {

constexpr size_t kMaxBodyWords = 14;
constexpr size_t kMaxBodyBeforeName = 6;
constexpr size_t kMaxTailWords = 8;
constexpr size_t kMaxNameWords = 8;

struct Verb {
  std::string_view past;
  std::string_view base;
};
// The verbs that follow "He", "She" and "It" most often in introductions of an encyclopedia.
constexpr Verb kVerbs[] = {{"played", "play"},
                           {"won", "win"},
                           {"served", "serve"},
                           {"competed", "compete"},
                           {"became", "become"},
                           {"made", "make"},
                           {"received", "receive"},
                           {"began", "begin"},
                           {"represented", "represent"},
                           {"starred", "star"},
                           {"died", "die"},
                           {"took", "take"},
                           {"appeared", "appear"},
                           {"started", "start"},
                           {"finished", "finish"},
                           {"featured", "feature"},
                           {"held", "hold"},
                           {"worked", "work"},
                           {"spent", "spend"},
                           {"returned", "return"},
                           {"attended", "attend"},
                           {"reached", "reach"},
                           {"moved", "move"},
                           {"opened", "open"},
                           {"retired", "retire"},
                           {"premiered", "premiere"},
                           {"consisted", "consist"},
                           {"wrote", "write"},
                           {"joined", "join"},
                           {"earned", "earn"},
                           {"contained", "contain"},
                           {"covered", "cover"},
                           {"participated", "participate"},
                           {"studied", "study"},
                           {"graduated", "graduate"},
                           {"led", "lead"},
                           {"hosted", "host"},
                           {"directed", "direct"},
                           {"gained", "gain"},
                           {"aired", "air"},
                           {"operated", "operate"},
                           {"debuted", "debut"},
                           {"achieved", "achieve"},
                           {"remained", "remain"},
                           {"lived", "live"},
                           {"scored", "score"},
                           {"signed", "sign"},
                           {"married", "marry"},
                           {"replaced", "replace"},
                           {"released", "release"},
                           {"offered", "offer"},
                           {"comprised", "comprise"},
                           {"provided", "provide"},
                           {"peaked", "peak"},
                           {"followed", "follow"},
                           {"entered", "enter"},
                           {"lost", "lose"},
                           {"developed", "develop"},
                           {"coached", "coach"},
                           {"resigned", "resign"},
                           {"founded", "found"},
                           {"produced", "produce"},
                           {"belonged", "belong"},
                           {"performed", "perform"},
                           {"portrayed", "portray"},
                           {"connected", "connect"},
                           {"established", "establish"},
                           {"managed", "manage"},
                           {"trained", "train"},
                           {"completed", "complete"},
                           {"recorded", "record"},
                           {"succeeded", "succeed"},
                           {"grossed", "gross"},
                           {"qualified", "qualify"},
                           {"created", "create"},
                           {"ended", "end"},
                           {"owned", "own"},
                           {"taught", "teach"},
                           {"published", "publish"},
                           {"launched", "launch"},
                           {"defeated", "defeat"},
                           {"topped", "top"},
                           {"sold", "sell"},
                           {"claimed", "claim"},
                           {"originated", "originate"},
                           {"captained", "captain"},
                           {"composed", "compose"},
                           {"commanded", "command"},
                           {"introduced", "introduce"},
                           {"raced", "race"},
                           {"obtained", "obtain"},
                           {"designed", "design"},
                           {"acquired", "acquire"},
                           {"built", "build"},
                           {"collaborated", "collaborate"},
                           {"transferred", "transfer"},
                           {"adopted", "adopt"},
                           {"assumed", "assume"},
                           {"closed", "close"},
                           {"averaged", "average"},
                           {"edited", "edit"},
                           {"ran", "run"},
                           {"lay", "lie"},
                           {"resided", "reside"},
                           {"stood", "stand"},
                           {"left", "leave"},
                           {"sang", "sing"},
                           {"succeeded", "succeed"},
                           {"flowed", "flow"},
                           {"covered", "cover"},
                           {"had", "have"}};
constexpr std::string_view kAuxiliaries[] = {"is", "was", "are", "were", "can", "could", "will", "would"};
constexpr std::string_view kAdverbs[] = {
    "also",       "later",     "then",       "first",    "originally", "previously", "currently", "now",
    "officially", "initially", "eventually", "formerly", "often",      "primarily",  "mainly",    "subsequently"};
// A span behind one of these belongs to another clause.
constexpr std::string_view kBoundaries[] = {
    "who", "which", "that", "whose", "where",   "when", "while",     "after",  "before", "because", "although",
    "but", "if",    "than", "as",    "until",   "not",  "whom",      "though", "so",     "making",  "being",
    "his", "her",   "or",   "and",   "between", "nor",  "including", "unless", "it",     "they"};
constexpr std::string_view kNamePrepositions[] = {"by", "in", "at", "from", "for", "with", "of", "to", "on", "against"};
constexpr std::string_view kTailPrepositions[] = {"in", "at",   "on", "for",     "with",
                                                  "by", "from", "to", "against", "near"};
constexpr std::string_view kPlaceWords[] = {"located", "born",   "based",  "situated", "headquartered", "held",
                                            "filmed",  "buried", "raised", "found",    "educated",      "shot",
                                            "die",     "live",   "reside", "lie",      "stand"};
constexpr std::string_view kAuthorWords[] = {"directed", "written",   "composed",  "designed", "painted",
                                             "narrated", "presented", "portrayed", "hosted",   "invented"};
constexpr std::string_view kPastParticiples[] = {
    "directed",   "written",  "created",     "produced",     "developed", "published", "released", "composed",
    "recorded",   "designed", "founded",     "built",        "painted",   "narrated",  "held",     "established",
    "discovered", "launched", "constructed", "commissioned", "adapted",   "invented",  "formed",   "broadcast"};
constexpr std::string_view kStateParticiples[] = {
    "located",      "based",  "situated", "headquartered", "owned",        "operated",  "distributed",
    "manufactured", "hosted", "coached",  "named",         "administered", "maintained"};

std::string third_person(std::string_view base) {
  std::string verb(base);
  if (verb == "have") return "has";
  const bool consonant_y =
      verb.ends_with('y') && std::string_view("aeiou").find(verb[verb.size() - 2]) == std::string_view::npos;
  if (consonant_y) return verb.replace(verb.size() - 1, 1, "ies");
  const bool hisses = verb.ends_with("s") || verb.ends_with("sh") || verb.ends_with("ch") || verb.ends_with("x");
  return verb.append(hisses ? "es" : "s");
}

struct VerbForm {
  std::string_view auxiliary;
  std::string_view base;
};

const VerbForm* find_verb(const std::string& word) {
  static const auto forms = [] {
    std::unordered_map<std::string, VerbForm> map;
    for (const Verb& verb : kVerbs) {
      map.emplace(verb.past, VerbForm{"did", verb.base});
      map.emplace(third_person(verb.base), VerbForm{"does", verb.base});
    }
    for (const std::string_view word_itself : kAuxiliaries) map.emplace(word_itself, VerbForm{word_itself, ""});
    return map;
  }();
  const auto form = forms.find(word);
  return form == forms.end() ? nullptr : &form->second;
}

bool is_participle(std::string_view word) { return word.ends_with("ed") || word.ends_with("en") || word == "won"; }

void append(std::string& text, std::string_view words) {
  if (words.empty()) return;
  if (!text.empty()) text += ' ';
  text += words;
}

/// What follows "is": no noun phrase, or a short one as in "a member of X".
bool is_simple_predicate(const Tokens& rest) {
  static constexpr std::string_view kBegins[] = {"a", "an", "the", "one"};
  return !is_one_of(rest.front().text, kBegins) ||
         (rest.size() > 3 && is_lower_word(rest[1].text) && is_one_of(rest[2].text, kNamePrepositions));
}

/// The clause whose verb (or adverb before it) is token `at`; false where there is none.
bool read_clause(const Tokens& t, size_t at, Clause& clause) {
  if (at < t.size() && is_one_of(t[at].text, kAdverbs)) clause.adverb = t[at++].text;
  if (at + 1 >= t.size() || t[at].after != 0) return false;
  const VerbForm* form = find_verb(t[at].text);
  if (form == nullptr) return false;
  const std::string& next = t[at + 1].text;
  if (form->base == "have" && (is_participle(next) || next == "a" || next == "to")) return false;
  if (form->base == "found" && next != "the" && !is_capitalised(next)) return false;
  clause.verb = t[at].text;
  clause.auxiliary = form->auxiliary;
  clause.base = form->base;
  clause.rest.assign(t.begin() + static_cast<ptrdiff_t>(at) + 1, t.end());
  if (clause.base.empty() && clause.adverb.empty() && is_one_of(clause.rest.front().text, kAdverbs)) {
    clause.adverb = clause.rest.front().text;
    clause.rest.erase(clause.rest.begin());
  }
  if (clause.base.empty() && !is_simple_predicate(clause.rest)) return false;
  if (clause.adverb == "also" || clause.adverb == "then") clause.adverb.clear();
  return !clause.rest.empty();
}

/// Number of tokens at the front that name the page's subject; 0: they do not.
size_t subject_length(const Page& page, const Tokens& t) {
  if (t.size() < 4) return 0;
  const std::string& first = t[0].text;
  if (first == "He" || first == "She") return page.is_person ? 1 : 0;
  if (first == "It") return page.is_person ? 0 : 1;
  const Tokens name = tokenise(page.name);
  const size_t skip = first == "The" && !page.name.starts_with("The ") ? 1 : 0;
  if (skip + name.size() < t.size() &&
      std::equal(name.begin(), name.end(), t.begin() + static_cast<ptrdiff_t>(skip),
                 [](const Token& x, const Token& y) { return x.text == y.text; }) &&
      t[skip + name.size() - 1].after == 0) {
    return skip + name.size();
  }
  if (page.is_person && name.size() > 1 && first == name.back().text && t[0].after == 0) return 1;
  if (first == "The" && !page.noun.empty() && t[1].text == page.noun && t[1].after == 0) return 2;
  return 0;
}

/// "a film directed by A and written by B": one clause for each participle behind the noun phrase.
std::vector<Clause> participle_clauses(const Page& page, const Tokens& t) {
  std::vector<Clause> clauses;
  for (size_t i = page.copula_at + 2; i + 2 < t.size(); ++i) {
    const std::string& word = t[i].text;
    const bool past = is_one_of(word, kPastParticiples);
    if (!past && !is_one_of(word, kStateParticiples)) continue;
    const std::string& before = t[i - 1].text;
    const std::string& next = t[i + 1].text;
    const bool follows_phrase = (is_lower_word(before) && (before == page.noun || before == "and")) || before == "and";
    if (!follows_phrase || (next != "by" && next != "in" && next != "on" && next != "at")) continue;
    Clause clause;
    clause.verb = past ? "was" : page.copula;
    clause.auxiliary = clause.verb;
    clause.rest.assign(t.begin() + static_cast<ptrdiff_t>(i), t.end());
    clauses.push_back(std::move(clause));
  }
  return clauses;
}

/// Tokens of a clause that may hold a span, and where such a span begins.
class Scanner {
 public:
  Scanner(const Clause& clause, const Catalogue& catalogue)
      : clause_(clause), rest_(clause.rest), catalogue_(catalogue) {}

  std::vector<Span> scan() {
    if (!clause_.base.empty()) {
      add_count();
      add_name(0, 0, "");
    }
    if (is_one_of(clause_.base, kPlaceWords)) add_place(0);
    const size_t limit = std::min(rest_.size(), kMaxBodyWords);
    for (size_t i = 0; i + 1 < limit; ++i) {
      const std::string& word = rest_[i].text;
      if (is_one_of(word, kBoundaries)) break;
      if (add_time(i)) break;
      const bool placed = is_one_of(word, kPlaceWords) && add_place(i + 1);
      if (placed) break;
      if (rest_[i].after != 0) break;
      if (is_one_of(word, kNamePrepositions) && add_name(i + 1, i + 1, word)) break;
    }
    return std::move(spans_);
  }

 private:
  bool ends_at(size_t i) const { return i >= rest_.size() || rest_[i - 1].after != 0; }

  /// Words behind a span that still belong to its clause: "at Wembley", up to the next mark or boundary.
  void add_tail(Span& span, size_t from) const {
    if (ends_at(from) || !is_one_of(rest_[from].text, kTailPrepositions)) return;
    span.tail_begin = from;
    for (size_t i = from; i < std::min(rest_.size(), from + kMaxTailWords); ++i) {
      if (is_one_of(rest_[i].text, kBoundaries)) return;
      if (rest_[i].after != 0 || i + 1 == rest_.size()) {
        span.tail_end = i + 1;
        return;
      }
    }
  }

  bool add_time(size_t i) {
    const std::string& preposition = rest_[i].text;
    if (preposition != "in" && preposition != "on" && preposition != "since") return false;
    size_t length = date_length(rest_, i + 1);
    if (length == 0 && is_year(rest_[i + 1].text)) {
      const bool alone = ends_at(i + 2) || is_lower_word(rest_[i + 2].text);
      length = alone ? 1 : 0;
    }
    if (length == 0) return false;
    Span span{.begin = i + 1, .end = i + 1 + length, .body = i};
    add_tail(span, span.end);
    if (preposition == "since") {
      span.front = "Since when";
    } else if (length == 1) {
      span.front = "In which year";
    } else {
      span.front = length == 2 ? "In which month" : "On what date";
    }
    span.in_place = span.front;
    span.in_place[0] = static_cast<char>(span.in_place[0] + 32);
    spans_.push_back(std::move(span));
    return true;
  }

  void add_count() {
    if (rest_.size() < 2 || !is_number(rest_[0].text) || rest_[0].after != 0 || is_year(rest_[0].text)) return;
    static constexpr std::string_view kUnits[] = {"miles", "kilometres", "kilometers", "metres", "meters",
                                                  "feet",  "acres",      "hectares",   "inches", "degrees"};
    size_t end = 1;
    while (end < rest_.size() && end < 4 && is_lower_word(rest_[end].text)) {
      const std::string& noun = rest_[end++].text;
      if (noun.ends_with('s') && noun.size() > 3) {
        if (is_one_of(noun, kUnits)) return;
        Span span{.begin = 0, .end = 1, .front = "How many " + join(rest_, 1, end)};
        add_tail(span, end);
        spans_.push_back(std::move(span));
        return;
      }
      if (rest_[end - 1].after != 0) return;
    }
  }

  bool add_place(size_t at) {
    if (at + 1 >= rest_.size() || (rest_[at].text != "in" && rest_[at].text != "at")) return false;
    size_t begin = at + 1;
    if (rest_[begin].text == "the") ++begin;
    size_t end = begin;
    while (end < rest_.size() && end < begin + kMaxNameWords && is_capitalised(rest_[end].text)) {
      if (date_length(rest_, end) > 0) return false;
      ++end;
      if (rest_[end - 1].after != 0 && rest_[end - 1].after != ',') break;
    }
    if (end == begin) return false;
    if (!ends_at(end) && !is_one_of(rest_[end].text, kTailPrepositions) && rest_[end].text != "and") return false;
    if (!ends_at(end) && rest_[end].text == "and" && end + 1 < rest_.size() && is_capitalised(rest_[end + 1].text)) {
      return false;
    }
    Span span{.begin = begin, .end = end, .body = at, .front = "Where", .in_place = "where"};
    span.document = catalogue_.find(join(rest_, begin, end));
    spans_.push_back(std::move(span));
    return true;
  }

  /// The name of a document at `at`, or after "by" a person's name.
  bool add_name(size_t at, size_t body, std::string_view preposition) {
    size_t begin = at;
    if (begin < rest_.size() && rest_[begin].text == "the") ++begin;
    if (begin >= rest_.size() || !is_capitalised(rest_[begin].text) || body > kMaxBodyBeforeName) return false;
    if (!std::all_of(rest_.begin(), rest_.begin() + static_cast<ptrdiff_t>(body),
                     [](const Token& token) { return is_lower_word(token.text); })) {
      return false;
    }
    for (size_t n = std::min(kMaxNameWords, rest_.size() - begin); n > 0; --n) {
      const int32_t document = catalogue_.find(join(rest_, begin, begin + n));
      if (document < 0 || !ends_name(begin + n)) continue;
      return push_name({.begin = begin, .end = begin + n, .body = body, .document = document});
    }
    if (preposition != "by" || at < 2 || !is_one_of(rest_[at - 2].text, kAuthorWords)) return false;
    size_t end = begin;
    while (end < rest_.size() && is_capitalised(rest_[end].text) && (end == begin || rest_[end - 1].after == 0)) ++end;
    if (end - begin < 2 || end - begin > 3 || !ends_name(end)) return false;
    return push_name({.begin = begin, .end = end, .body = body});
  }

  /// Neither the name goes on at `end` nor a list or an apposition of names.
  bool ends_name(size_t end) const {
    if (end >= rest_.size()) return true;
    const std::string& next = rest_[end].text;
    if (rest_[end - 1].after != 0) return !is_capitalised(next) && next != "and" && next != "or";
    if (next == "and" || next == "or") return end + 1 < rest_.size() && !is_capitalised(rest_[end + 1].text);
    return is_lower_word(next) && next != "of" && (is_one_of(next, kBoundaries) || is_one_of(next, kTailPrepositions));
  }

  bool push_name(Span span) {
    const Page* page = span.document < 0 ? nullptr : &catalogue_.page(span.document);
    if (page == nullptr || (page->is_person && !page->predicate.empty())) {
      span.front = "Who";
      span.in_place = span.body > 0 ? "whom" : "who";
    } else if (!page->type.empty() && (page->copula == "is" || page->copula == "was")) {
      span.front = "Which " + page->type;
      span.in_place = "which " + page->type;
    } else {
      return false;
    }
    spans_.push_back(std::move(span));
    return true;
  }

  const Clause& clause_;
  const Tokens& rest_;
  const Catalogue& catalogue_;
  std::vector<Span> spans_;
};

}  // namespace

std::string capitalise(std::string text) {
  if (!text.empty() && text[0] >= 'a' && text[0] <= 'z') text[0] = static_cast<char>(text[0] - 32);
  return text;
}

std::vector<Clause> clauses_of(const Page& page, const Prose& prose, size_t i) {
  const Tokens& t = prose.tokens[i];
  if (page.subject.empty()) return {};
  if (i == 0 && page.copula_at > 0 && !page.type.empty()) return participle_clauses(page, t);
  const size_t length = i == 0 && page.copula_at > 0 ? page.copula_at : subject_length(page, t);
  Clause clause;
  if (length == 0 || !read_clause(t, length, clause)) return {};
  return {std::move(clause)};
}

std::vector<Span> spans_of(const Clause& clause, const Catalogue& catalogue) {
  return Scanner(clause, catalogue).scan();
}

std::string state(const Clause& clause, const std::string& subject, size_t n) {
  std::string text = subject;
  if (clause.base.empty()) {
    append(text, clause.verb);
    append(text, clause.adverb);
  } else {
    append(text, clause.adverb);
    append(text, clause.verb);
  }
  append(text, join(clause.rest, 0, n));
  return text;
}

Ask ask(const Clause& clause, const Span& span, const std::string& subject, Random& random) {
  Ask result;
  result.answer = join(clause.rest, span.begin, span.end);
  const std::string tail = span.tail_end == 0 ? "" : join(clause.rest, span.tail_begin, span.tail_end);
  std::string& text = result.question;
  if (!span.in_place.empty() && random.chance(0.2)) {
    text = capitalise(state(clause, subject, span.body));
    append(text, span.in_place);
    append(text, tail);
    return text += '?', result;
  }
  const bool is_date = span.front == "On what date" || span.front == "In which year";
  text = is_date && random.chance(0.5) ? "When" : span.front;
  append(text, clause.auxiliary);
  append(text, subject);
  append(text, clause.adverb);
  append(text, clause.base);
  append(text, join(clause.rest, 0, span.body));
  append(text, tail);
  text += '?';
  return result;
}

}  // namespace msa::train
