#include "tokenizer/tokenizer.h"

#include <array>
#include <unordered_map>
#include <unordered_set>
#include <utility>

#include "core/error.h"
#include "io/file.h"
#include "io/json_file.h"
#include "io/text.h"
#include "tokenizer/byte_pairs.h"
#include "tokenizer/regex.h"
#include "tokenizer/spec.h"
#include "tokenizer/token_trie.h"
#include "tokenizer/utf8.h"

namespace msa {
namespace {

constexpr size_t kMaxTextBytes = size_t{1} << 30;
constexpr size_t kMaxAddedTokenBytes = 1024;

/// The byte-level alphabet of GPT-2: printable bytes of Latin-1 stand for themselves, the others for U+0100 and on.
class ByteAlphabet {
 public:
  ByteAlphabet() {
    int next = 256;
    for (int b = 0; b < 256; ++b) {
      const bool printable_byte = (b >= '!' && b <= '~') || (b >= 0xA1 && b <= 0xAC) || b >= 0xAE;
      const int c = printable_byte ? b : next++;
      std::string& letter = letters_[static_cast<size_t>(b)];
      if (c < 0x80) {
        letter = static_cast<char>(c);
      } else {
        letter = {static_cast<char>(0xC0 | c >> 6), static_cast<char>(0x80 | (c & 0x3F))};
      }
      bytes_[letter] = static_cast<char>(b);
    }
  }

  const std::string& letter(uint8_t byte) const { return letters_[byte]; }

  /// The bytes that the letters of `token` stand for. False: it holds something else.
  bool decode(std::string_view token, std::string& bytes) const {
    bytes.clear();
    while (!token.empty()) {
      const size_t n = static_cast<size_t>(utf8_step(token).bytes);
      const auto it = bytes_.find(std::string(token.substr(0, n)));
      if (it == bytes_.end()) return false;
      bytes += it->second;
      token.remove_prefix(n);
    }
    return true;
  }

 private:
  std::array<std::string, 256> letters_;
  std::unordered_map<std::string, char> bytes_;
};

using TokenIds = std::unordered_map<std::string_view, int32_t>;

int32_t need_id(const TokenIds& ids, const std::string& token, size_t rank, const std::string& where) {
  const auto it = ids.find(token);
  if (it != ids.end()) return it->second;
  throw Error("merge " + std::to_string(rank) + " needs the token '" + printable(token) + "', which is not there",
              where);
}

struct Split {
  Regex regex;
  bool keep_matches;
  bool keep_others;
};

}  // namespace

struct Tokenizer::Tables {
  std::string bytes;              // of all tokens, one after the other
  std::vector<uint32_t> offsets;  // [vocab + 1] into bytes
  std::vector<bool> special;      // [vocab]
  std::unordered_map<std::string, int32_t> special_ids;
  std::unordered_map<std::string_view, int32_t> whole_words;  // views into bytes; empty unless merges are ignored
  TokenTrie original_tokens;                                  // added tokens of the original text
  TokenTrie normalized_tokens;                                // added tokens of the normalised text
  BytePairs pairs;
  std::vector<Split> splits;
  bool nfc = false;

  explicit Tables(const TokenizerSpec& spec);
  int32_t vocab() const { return static_cast<int32_t>(special.size()); }
  std::string_view token(int32_t id) const {
    const size_t i = static_cast<size_t>(id);
    return std::string_view(bytes).substr(offsets[i], offsets[i + 1] - offsets[i]);
  }
  /// Control tokens may not come out of plain text. A single byte must, even where a model uses it for control too.
  bool reserved(int32_t id) const { return special[static_cast<size_t>(id)] && token(id).size() > 1; }

 private:
  void add_tokens(const TokenizerSpec& spec, const TokenIds& ids);
  void lay_out_bytes(const TokenizerSpec& spec, const ByteAlphabet& alphabet);
  void add_merges(const TokenizerSpec& spec, const TokenIds& ids, const ByteAlphabet& alphabet);
};

Tokenizer::Tables::Tables(const TokenizerSpec& spec) : nfc(spec.nfc) {
  TokenIds ids;
  for (size_t id = 0; id < spec.tokens.size(); ++id) {
    if (!spec.tokens[id].empty()) ids[spec.tokens[id]] = static_cast<int32_t>(id);
  }
  const ByteAlphabet alphabet;
  add_tokens(spec, ids);
  lay_out_bytes(spec, alphabet);
  add_merges(spec, ids, alphabet);
  for (const SplitRule& rule : spec.splits) {
    splits.push_back({rule.literal ? Regex::literal(rule.pattern, rule.where) : Regex(rule.pattern, rule.where),
                      rule.keep_matches, rule.keep_others});
  }
}

void Tokenizer::Tables::add_tokens(const TokenizerSpec& spec, const TokenIds& ids) {
  special.resize(spec.tokens.size());
  std::unordered_set<int32_t> taken;
  for (const AddedToken& token : spec.added) {
    const std::string where = spec.where + ": added token " + std::to_string(token.id);
    if (token.content.empty() || token.content.size() > kMaxAddedTokenBytes || !is_valid_utf8(token.content)) {
      throw Error("an added token must be 1 to " + std::to_string(kMaxAddedTokenBytes) + " bytes of UTF-8", where);
    }
    const auto known = ids.find(token.content);
    const size_t id = static_cast<size_t>(token.id);
    if ((known != ids.end() && known->second != token.id) ||
        (known == ids.end() && id < spec.tokens.size() && !spec.tokens[id].empty())) {
      throw Error("the vocabulary has another id for '" + printable(token.content) + "' or another token of this id",
                  where);
    }
    if (id >= special.size()) special.resize(id + 1);
    if (token.special) {
      special[id] = true;
      special_ids[token.content] = token.id;
    }
    const bool added = token.normalized && nfc
                           ? normalized_tokens.add(compose_nfc(token.content), token.id)
                           : (token.normalized ? normalized_tokens : original_tokens).add(token.content, token.id);
    if (!added || !taken.insert(token.id).second) throw Error("the token or its id is added twice", where);
  }
}

void Tokenizer::Tables::lay_out_bytes(const TokenizerSpec& spec, const ByteAlphabet& alphabet) {
  std::vector<std::string> texts(special.size());
  std::vector<bool> word(special.size());
  for (size_t id = 0; id < spec.tokens.size(); ++id) {
    word[id] = !spec.tokens[id].empty() && alphabet.decode(spec.tokens[id], texts[id]);
    if (!word[id]) texts[id] = spec.tokens[id];
  }
  for (const AddedToken& token : spec.added) {
    texts[static_cast<size_t>(token.id)] = token.content;
  }
  offsets.reserve(texts.size() + 1);
  for (const std::string& text : texts) {
    offsets.push_back(static_cast<uint32_t>(bytes.size()));
    bytes += text;
    if (bytes.size() > UINT32_MAX) throw Error("the tokens take more than 4 GiB", spec.where);
  }
  offsets.push_back(static_cast<uint32_t>(bytes.size()));
  if (!spec.ignore_merges) return;
  for (int32_t id = 0; id < vocab(); ++id) {
    if (word[static_cast<size_t>(id)] && !reserved(id)) whole_words[token(id)] = id;
  }
}

void Tokenizer::Tables::add_merges(const TokenizerSpec& spec, const TokenIds& ids, const ByteAlphabet& alphabet) {
  std::array<int32_t, 256> byte_ids{};
  for (int b = 0; b < 256; ++b) {
    const auto it = ids.find(alphabet.letter(static_cast<uint8_t>(b)));
    byte_ids[static_cast<size_t>(b)] = it == ids.end() ? -1 : it->second;
    if (it == ids.end() && spec.has_unknown_token) {
      throw Error("an unknown token is set, and byte " + std::to_string(b) + " is not in the vocabulary", spec.where,
                  "set model.unk_token to null");
    }
  }
  std::vector<Merge> merges;
  merges.reserve(spec.merges.size());
  for (size_t rank = 0; rank < spec.merges.size(); ++rank) {
    const auto& [left, right] = spec.merges[rank];
    const Merge merge{need_id(ids, left, rank, spec.where), need_id(ids, right, rank, spec.where),
                      need_id(ids, left + right, rank, spec.where)};
    if (!reserved(merge.result)) merges.push_back(merge);
  }
  pairs = BytePairs(merges, byte_ids);
}

/// One text on its way: added tokens, normalisation, the splits one inside the other, byte pairs.
class Tokenizer::Encoder {
 public:
  Encoder(const Tables& tables, bool parse_special) : tables_(tables), parse_special_(parse_special) {
    matchers_.reserve(tables.splits.size());
    for (const Split& split : tables.splits) matchers_.emplace_back(split.regex);
  }

  std::vector<int32_t> encode(std::string_view text) {
    around_tokens(tables_.original_tokens, text, [this](std::string_view part) {
      const std::string composed = tables_.nfc ? compose_nfc(part) : std::string();
      around_tokens(tables_.normalized_tokens, tables_.nfc ? composed : part,
                    [this](std::string_view plain) { split(plain, 0); });
    });
    return std::move(tokens_);
  }

 private:
  template <class Between>
  void around_tokens(const TokenTrie& added, std::string_view text, const Between& between) {
    size_t begin = 0;
    size_t from = 0;
    while (const auto match = added.find(text, from)) {
      from = match->end;
      if (!parse_special_ && tables_.special[static_cast<size_t>(match->id)]) continue;
      if (match->begin > begin) between(text.substr(begin, match->begin - begin));
      tokens_.push_back(match->id);
      begin = match->end;
    }
    if (begin < text.size()) between(text.substr(begin));
  }

  void split(std::string_view text, size_t step) {
    if (text.empty()) return;
    if (step == matchers_.size()) return word(text);
    const Split& rule = tables_.splits[step];
    RegexMatcher::Cursor cursor;
    TextRange match;
    size_t done = 0;
    while (matchers_[step].next(text, cursor, match)) {
      if (rule.keep_others) split(text.substr(done, match.begin - done), step + 1);
      if (rule.keep_matches) split(text.substr(match.begin, match.end - match.begin), step + 1);
      done = match.end;
    }
    if (rule.keep_others) split(text.substr(done), step + 1);
  }

  void word(std::string_view text) {
    if (!tables_.whole_words.empty()) {
      const auto it = tables_.whole_words.find(text);
      if (it != tables_.whole_words.end()) return tokens_.push_back(it->second);
    }
    tables_.pairs.encode(text, scratch_, tokens_);
  }

  const Tables& tables_;
  bool parse_special_;
  std::vector<RegexMatcher> matchers_;  // one per split
  BytePairs::Scratch scratch_;
  std::vector<int32_t> tokens_;
};

Tokenizer::Tokenizer(const TokenizerSpec& spec) : tables_(std::make_shared<const Tables>(spec)) {}

Tokenizer Tokenizer::from_json(std::string_view bytes, const std::string& where) {
  return Tokenizer(tokenizer_spec_from_json(bytes, where));
}

Tokenizer Tokenizer::from_json_file(const std::string& path) { return from_json(read_file(path, kMaxJsonBytes), path); }

Tokenizer Tokenizer::from_gguf(const std::string& path) { return Tokenizer(tokenizer_spec_from_gguf(path)); }

std::vector<int32_t> Tokenizer::encode(std::string_view utf8, bool parse_special) const {
  if (utf8.size() > kMaxTextBytes) {
    throw Error("a text of " + std::to_string(utf8.size()) + " bytes is too long for one document", "tokenizer",
                "cut it into pieces below 1 GiB");
  }
  const std::string replaced = is_valid_utf8(utf8) ? std::string() : replace_broken_utf8(utf8);
  return Encoder(*tables_, parse_special).encode(replaced.empty() ? utf8 : replaced);
}

std::string Tokenizer::decode(std::span<const int32_t> tokens, bool skip_special) const {
  std::string bytes;
  for (const int32_t id : tokens) {
    if (!skip_special || !is_special(id)) bytes += token_bytes(id);
  }
  return is_valid_utf8(bytes) ? bytes : replace_broken_utf8(bytes);
}

std::string_view Tokenizer::token_bytes(int32_t id) const {
  return id < 0 || id >= vocab_size() ? std::string_view() : tables_->token(id);
}

int32_t Tokenizer::special_id(std::string_view token) const {
  const auto it = tables_->special_ids.find(std::string(token));
  return it == tables_->special_ids.end() ? -1 : it->second;
}

bool Tokenizer::is_special(int32_t id) const {
  return id >= 0 && id < vocab_size() && tables_->special[static_cast<size_t>(id)];
}

int32_t Tokenizer::vocab_size() const { return tables_->vocab(); }

std::string StreamDecoder::add(int32_t token) {
  if (skip_special_ && tokenizer_.is_special(token)) return {};
  pending_ += tokenizer_.token_bytes(token);
  std::string text;
  size_t done = 0;
  while (done < pending_.size()) {
    const std::string_view rest = std::string_view(pending_).substr(done);
    const Utf8Step step = utf8_step(rest);
    if (step.truncated) break;
    const size_t n = static_cast<size_t>(step.bytes);
    text += step.valid ? rest.substr(0, n) : kReplacementCharacter;
    done += n;
  }
  pending_.erase(0, done);
  return text;
}

std::string StreamDecoder::finish() { return replace_broken_utf8(std::exchange(pending_, {})); }

}  // namespace msa
