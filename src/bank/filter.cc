#include "bank/filter.h"

#include <algorithm>
#include <cctype>
#include <utility>

#include "core/error.h"

namespace msa {
namespace {

constexpr size_t kMaxBytes = 16384;
constexpr size_t kMaxValues = 1000;
constexpr int kMaxDepth = 50;  // SQLite's own limit of nesting lies far above what this makes of it

struct Token {
  enum class Type { kEnd, kName, kQuotedName, kText, kNumber, kSymbol };
  Type type = Type::kEnd;
  std::string text;  // names as written; keywords are compared without case
  size_t at = 0;     // byte of the filter
};

[[noreturn]] void fail(const std::string& what, size_t at) {
  throw Error(what + " at character " + std::to_string(at + 1), "filter",
              "for instance: namespace = 'a' and time >= '2026-01-01' and tag in ('x', 'y')");
}

bool is_name_start(char c) { return std::isalpha(static_cast<unsigned char>(c)) != 0 || c == '_'; }
bool is_digit(char c) { return c >= '0' && c <= '9'; }

class Lexer {
 public:
  explicit Lexer(std::string_view text) : text_(text) {}

  Token next() {
    while (at_ < text_.size() && std::isspace(static_cast<unsigned char>(text_[at_])) != 0) ++at_;
    Token token;
    token.at = at_;
    if (at_ == text_.size()) return token;
    const char c = text_[at_];
    if (c == '\'' || c == '"') {
      token.type = c == '"' ? Token::Type::kQuotedName : Token::Type::kText;
      token.text = quoted(c);
    } else if (is_name_start(c)) {
      token.type = Token::Type::kName;
      token.text = run([](char x) { return is_name_start(x) || is_digit(x); });
    } else if (is_digit(c) || ((c == '-' || c == '+' || c == '.') && at_ + 1 < text_.size())) {
      token.type = Token::Type::kNumber;
      token.text = number();
    } else {
      token.type = Token::Type::kSymbol;
      token.text = symbol();
    }
    return token;
  }

 private:
  template <class Predicate>
  std::string run(Predicate&& belongs) {
    const size_t begin = at_;
    while (at_ < text_.size() && belongs(text_[at_])) ++at_;
    return std::string(text_.substr(begin, at_ - begin));
  }

  std::string quoted(char quote) {
    const size_t begin = at_++;
    std::string out;
    for (; at_ < text_.size(); ++at_) {
      if (text_[at_] == quote) {
        if (at_ + 1 == text_.size() || text_[at_ + 1] != quote) {
          ++at_;
          return out;
        }
        ++at_;
      }
      out += text_[at_];
    }
    fail("a quote is not closed", begin);
  }

  /// [sign] digits [. digits] [e [sign] digits]
  std::string number() {
    const size_t begin = at_;
    if (text_[at_] == '-' || text_[at_] == '+') ++at_;
    size_t digits = run(is_digit).size();
    if (at_ < text_.size() && text_[at_] == '.') {
      ++at_;
      digits += run(is_digit).size();
    }
    if (digits == 0) fail("a number is expected", begin);
    if (at_ < text_.size() && (text_[at_] == 'e' || text_[at_] == 'E')) {
      ++at_;
      if (at_ < text_.size() && (text_[at_] == '-' || text_[at_] == '+')) ++at_;
      if (run(is_digit).empty()) fail("a number is expected", begin);
    }
    if (at_ < text_.size() && is_name_start(text_[at_])) fail("a number runs into a name", begin);
    return std::string(text_.substr(begin, at_ - begin));
  }

  std::string symbol() {
    for (const std::string_view two : {"==", "!=", "<>", "<=", ">="}) {
      if (text_.substr(at_, 2) != two) continue;
      at_ += 2;
      return std::string(two);
    }
    const char c = text_[at_];
    if (std::string_view("=<>(),").find(c) == std::string_view::npos) fail("this character belongs to no filter", at_);
    ++at_;
    return std::string(1, c);
  }

  std::string_view text_;
  size_t at_ = 0;
};

std::string lower(std::string text) {
  std::transform(text.begin(), text.end(), text.begin(), [](unsigned char c) { return std::tolower(c); });
  return text;
}

class Parser {
 public:
  explicit Parser(std::string_view text) : lexer_(text), token_(lexer_.next()) {}

  Filter parse() {
    if (token_.type == Token::Type::kEnd) return {};
    Filter filter = disjunction();
    if (token_.type != Token::Type::kEnd) fail("'and', 'or' or the end is expected", token_.at);
    return filter;
  }

 private:
  bool is_keyword(const char* word) const { return token_.type == Token::Type::kName && lower(token_.text) == word; }
  bool is_symbol(const char* symbol) const { return token_.type == Token::Type::kSymbol && token_.text == symbol; }
  void advance() { token_ = lexer_.next(); }
  void expect(const char* symbol) {
    if (!is_symbol(symbol)) fail(std::string("'") + symbol + "' is expected", token_.at);
    advance();
  }

  Filter disjunction() {
    return joined(Filter::Kind::kOr, "or", [this] { return conjunction(); });
  }
  Filter conjunction() {
    return joined(Filter::Kind::kAnd, "and", [this] { return term(); });
  }

  template <class Part>
  Filter joined(Filter::Kind kind, const char* word, Part&& part) {
    Filter first = part();
    if (!is_keyword(word)) return first;
    Filter all;
    all.kind = kind;
    all.children.push_back(std::move(first));
    while (is_keyword(word)) {
      advance();
      all.children.push_back(part());
    }
    return all;
  }

  static Filter negated(Filter filter) {
    Filter n;
    n.kind = Filter::Kind::kNot;
    n.children.push_back(std::move(filter));
    return n;
  }

  Filter term() {
    if (++depth_ > kMaxDepth) fail("the filter is nested too deeply", token_.at);
    Filter filter;
    if (is_keyword("not")) {
      advance();
      filter = negated(term());
    } else if (is_symbol("(")) {
      advance();
      filter = disjunction();
      expect(")");
    } else {
      filter = comparison();
    }
    --depth_;
    return filter;
  }

  Filter comparison() {
    if (token_.type != Token::Type::kName && token_.type != Token::Type::kQuotedName) {
      fail("the name of a field is expected", token_.at);
    }
    Filter filter;
    filter.kind = Filter::Kind::kCompare;
    filter.field = token_.text;
    advance();
    const bool negative = is_keyword("not");
    if (negative) advance();
    if (is_keyword("in")) {
      advance();
      expect("(");
      do filter.values.push_back(value());
      while (is_symbol(",") && (advance(), true));
      expect(")");
      return negative ? negated(std::move(filter)) : filter;
    }
    if (negative) fail("'in' is expected", token_.at);
    const std::string op = token_.type == Token::Type::kSymbol ? token_.text : "";
    if (op == "<")
      filter.op = Filter::Operator::kLess;
    else if (op == "<=")
      filter.op = Filter::Operator::kLessEqual;
    else if (op == ">")
      filter.op = Filter::Operator::kGreater;
    else if (op == ">=")
      filter.op = Filter::Operator::kGreaterEqual;
    else if (op != "=" && op != "==" && op != "!=" && op != "<>")
      fail("a comparison is expected", token_.at);
    advance();
    filter.values.push_back(value());
    return op == "!=" || op == "<>" ? negated(std::move(filter)) : filter;
  }

  Filter::Value value() {
    if (++values_ > kMaxValues) fail("more than 1000 values", token_.at);
    Filter::Value value{Filter::Value::Type::kText, token_.text};
    if (token_.type == Token::Type::kNumber) {
      value.type = Filter::Value::Type::kNumber;
    } else if (is_keyword("true") || is_keyword("false")) {
      value = {Filter::Value::Type::kBool, lower(token_.text)};
    } else if (token_.type != Token::Type::kText) {
      fail("a value is expected: 'text', a number, true or false", token_.at);
    }
    advance();
    return value;
  }

  Lexer lexer_;
  Token token_;
  int depth_ = 0;
  size_t values_ = 0;
};

}  // namespace

Filter Filter::parse(std::string_view text) {
  if (text.size() > kMaxBytes) fail("the filter is longer than " + std::to_string(kMaxBytes) + " bytes", kMaxBytes);
  return Parser(text).parse();
}

}  // namespace msa
