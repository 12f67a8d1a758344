#include "tokenizer/tokenizer.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <chrono>
#include <random>
#include <thread>

#include "core/error.h"
#include "tiny_tokenizer.h"
#include "tokenizer/utf8.h"

namespace msa {
namespace {

using ::testing::ElementsAre;
using ::testing::HasSubstr;
using Json = nlohmann::json;
using Ids = std::vector<int32_t>;

Tokenizer load(const Json& json) { return Tokenizer::from_json(json.dump(), "tiny.json"); }

Json with_split(const std::string& pattern, const std::string& behavior, bool invert, const char* kind = "Regex") {
  Json json = testing::tiny_tokenizer();
  json["pre_tokenizer"] = {
      {"type", "Sequence"},
      {"pretokenizers",
       {{{"type", "Split"}, {"pattern", {{kind, pattern}}}, {"behavior", behavior}, {"invert", invert}},
        {{"type", "ByteLevel"}, {"add_prefix_space", false}, {"use_regex", false}}}}};
  return json;
}

/// The message of the Error that loading throws.
std::string refusal(const Json& json) {
  try {
    load(json);
  } catch (const Error& e) {
    return e.what();
  }
  return "no error";
}

TEST(Utf8, ReplacesMaximalSubparts) {
  const auto replaced = [](std::string text) {
    for (size_t at; (at = text.find("\xEF\xBF\xBD")) != std::string::npos;) text.replace(at, 3, 1, '?');
    return text;
  };
  // What Python's bytes.decode("utf-8", errors="replace") makes of them, U+FFFD written as '?'.
  EXPECT_EQ(replaced(replace_broken_utf8("a\x80z\xC3")), "a?z?");
  EXPECT_EQ(replaced(replace_broken_utf8("\xE2\x82z")), "?z");
  EXPECT_EQ(replaced(replace_broken_utf8("\xF0\x9F\x98z\xF0\x9F")), "?z?");
  EXPECT_EQ(replaced(replace_broken_utf8("\xED\xA0\x80")), "???");       // a surrogate
  EXPECT_EQ(replaced(replace_broken_utf8("\xC0\xAF\xE0\x80")), "????");  // overlong
  EXPECT_EQ(replaced(replace_broken_utf8("\xF4\x90\x80\x80\xFF")), "?????");
  EXPECT_EQ(replace_broken_utf8("gr\xC3\xBC\xC3\x9F \xF0\x9F\x98\x80"), "gr\xC3\xBC\xC3\x9F \xF0\x9F\x98\x80");
}

TEST(Utf8, ComposesCanonically) {
  EXPECT_EQ(compose_nfc("e\xCC\x81"), "\xC3\xA9");
  EXPECT_EQ(compose_nfc("\xE2\x84\xAB"), "\xC3\x85");                   // the Ångström sign
  EXPECT_EQ(compose_nfc("\xE1\x84\x80\xE1\x85\xA1"), "\xEA\xB0\x80");   // Hangul
  EXPECT_EQ(compose_nfc("a\xCC\x87\xCC\xA3"), "\xE1\xBA\xA1\xCC\x87");  // marks in order
  EXPECT_EQ(compose_nfc(std::string_view("\0x", 2)), std::string_view("\0x", 2));
}

TEST(Tokenizer, MergesByRank) {
  const Tokenizer t = load(testing::tiny_tokenizer());
  EXPECT_EQ(t.vocab_size(), 267);
  EXPECT_THAT(t.encode("abc"), ElementsAre('a', 256));  // "b c" ranks before "a b"
  EXPECT_THAT(t.encode("abab"), ElementsAre(257, 257));
  EXPECT_THAT(t.encode(" the th"), ElementsAre(261, 260));
  EXPECT_THAT(t.encode(""), ElementsAre());
}

TEST(Tokenizer, TakesMergesAsPairs) {
  Json json = testing::tiny_tokenizer();
  for (Json& merge : json["model"]["merges"]) {
    const std::string text = merge;
    merge = {text.substr(0, text.find(' ')), text.substr(text.find(' ') + 1)};
  }
  EXPECT_EQ(load(json).encode("abc the"), load(testing::tiny_tokenizer()).encode("abc the"));
}

TEST(Tokenizer, TakesWholeWordsWhenMergesAreIgnored) {
  Json json = testing::tiny_tokenizer();
  json["model"]["ignore_merges"] = true;
  const Tokenizer t = load(json);
  EXPECT_THAT(t.encode("abc"), ElementsAre(258));
  EXPECT_THAT(t.encode("xabc"), ElementsAre('x', 'a', 256));
}

TEST(Tokenizer, ParsesSpecialTokensOnlyWhenAsked) {
  const Tokenizer t = load(testing::tiny_tokenizer());
  EXPECT_THAT(t.encode("a<|im_end|>b", true), ElementsAre('a', 263, 'b'));
  const Ids plain = t.encode("a<|im_end|>b");
  EXPECT_EQ(plain.size(), 12u);
  for (const int32_t id : plain) EXPECT_FALSE(t.is_special(id));
  EXPECT_THAT(t.encode("<tool>"), ElementsAre(266));  // not special: found always
  EXPECT_EQ(t.special_id("<|im_end|>"), 263);
  EXPECT_EQ(t.special_id("<tool>"), -1);
  EXPECT_FALSE(t.is_special(-1) || t.is_special(100000));
}

TEST(Tokenizer, PlainTextNeverBecomesSpecialThroughMerges) {
  Json json = testing::tiny_tokenizer();
  json["added_tokens"].push_back({{"id", 258}, {"content", "abc"}, {"special", true}});
  for (const bool ignore_merges : {false, true}) {
    json["model"]["ignore_merges"] = ignore_merges;
    json["model"]["merges"].push_back("a bc");
    const Tokenizer t = load(json);
    EXPECT_THAT(t.encode("abc"), ElementsAre('a', 256));
    EXPECT_THAT(t.encode("abc", true), ElementsAre(258));
  }
}

TEST(Tokenizer, LongestAddedTokenWins) {
  Json json = testing::tiny_tokenizer();
  json["added_tokens"].push_back({{"id", 300}, {"content", "<tool>s"}, {"normalized", false}});
  const Tokenizer t = load(json);
  EXPECT_EQ(t.vocab_size(), 301);
  EXPECT_THAT(t.encode("<tool>x<tool>s"), ElementsAre(266, 'x', 300));
  EXPECT_EQ(t.token_bytes(280), "");
  EXPECT_EQ(t.decode(Ids{266, 300, 280, -5, 99999}), "<tool><tool>s");
}

TEST(Tokenizer, Splits) {
  EXPECT_THAT(load(with_split("b", "Isolated", false)).encode("abcab"), ElementsAre('a', 'b', 'c', 'a', 'b'));
  EXPECT_THAT(load(with_split("b", "Removed", false)).encode("abc"), ElementsAre('a', 'c'));
  EXPECT_THAT(load(with_split("bc|a", "Removed", true)).encode("xabcx"), ElementsAre('a', 256));
  EXPECT_THAT(load(with_split("(?=c)", "Isolated", false)).encode("abc"), ElementsAre(257, 'c'));
  EXPECT_THAT(load(with_split("b*", "Isolated", false)).encode("abbc"), ElementsAre('a', 'b', 'b', 'c'));
  EXPECT_THAT(load(with_split(".", "Removed", false, "String")).encode("a.b"), ElementsAre('a', 'b'));
  // U+180E is no white space today, though PCRE2's own \s takes it for one.
  EXPECT_EQ(load(with_split("\\s", "Removed", false)).encode("\xE1\xA0\x8E\xC2\x85\xE3\x80\x80").size(), 3u);
}

TEST(Tokenizer, DecodesBrokenCharacters) {
  const Tokenizer t = load(testing::tiny_tokenizer());
  EXPECT_EQ(t.decode(Ids{0xE2, 0x82, 'x'}), "\xEF\xBF\xBDx");
  EXPECT_EQ(t.decode(Ids{262, 'x', 263}), "x");
  EXPECT_EQ(t.decode(Ids{262, 'x', 263}, false), "<|im_start|>x<|im_end|>");
  EXPECT_THAT(t.encode("\xE2\x82"), ElementsAre(0xEF, 0xBF, 0xBD));
}

TEST(Tokenizer, ThreadsShareIt) {
  const Tokenizer t = load(testing::tiny_tokenizer());
  const std::string text = "abc the <|im_start|> thab 123 \xC3\xA9";
  const Ids want = t.encode(text, true);
  std::vector<int> wrong(4);
  std::vector<std::thread> threads;
  for (int& count : wrong) {
    threads.emplace_back([&] {
      for (int i = 0; i < 200; ++i) count += t.encode(text, true) != want;
    });
  }
  for (auto& thread : threads) thread.join();
  EXPECT_THAT(wrong, ::testing::Each(0));
}

TEST(StreamDecoder, GivesWholeCharactersAndEqualsDecode) {
  const Tokenizer t = load(testing::tiny_tokenizer());
  StreamDecoder decoder(t);
  std::vector<std::string> pieces;
  for (const int32_t id : Ids{'a', 0xE2, 0x82, 0xAC, 262, 0xF0, 0x9F, 'b', 0xC3}) pieces.push_back(decoder.add(id));
  EXPECT_THAT(pieces, ElementsAre("a", "", "", "\xE2\x82\xAC", "", "", "",
                                  "\xEF\xBF\xBD"
                                  "b",
                                  ""));
  EXPECT_EQ(decoder.finish(), "\xEF\xBF\xBD");
  EXPECT_EQ(decoder.finish(), "");

  const unsigned seed = 7;
  SCOPED_TRACE(seed);
  std::mt19937 random(seed);
  for (int round = 0; round < 300; ++round) {
    Ids ids(random() % 30);
    for (int32_t& id : ids) id = static_cast<int32_t>(random() % 4 == 0 ? random() % 267 : 0x80 + random() % 128);
    std::string streamed;
    for (const int32_t id : ids) {
      const std::string piece = decoder.add(id);
      EXPECT_TRUE(is_valid_utf8(piece));
      streamed += piece;
    }
    EXPECT_EQ(streamed + decoder.finish(), t.decode(ids));
  }
}

TEST(Tokenizer, LongWordsAreNotQuadratic) {
  const Tokenizer t = load(testing::tiny_tokenizer());
  std::string text;
  while (text.size() < 2'000'000) text += "abcab";
  const auto start = std::chrono::steady_clock::now();
  const Ids ids = t.encode(text);
  text.assign(2'000'000, ' ');
  EXPECT_EQ(t.encode(text).size(), text.size());
  const auto seconds = std::chrono::duration<double>(std::chrono::steady_clock::now() - start).count();
  EXPECT_EQ(ids.size(), 3 * 400'000u);
  EXPECT_LT(seconds, 20);  // about 0.2 s; minutes if it were quadratic
}

struct Refusal {
  const char* pointer;  // JSON pointer into the file
  Json value;
  const char* message;
};

TEST(TokenizerFile, NamesWhatItRefuses) {
  const std::vector<Refusal> cases = {
      {"/model/type", "WordPiece", "$.model.type"},
      {"/model/byte_fallback", true, "$.model.byte_fallback"},
      {"/model/dropout", 0.1, "$.model.dropout"},
      {"/model/continuing_subword_prefix", "##", "$.model.continuing_subword_prefix"},
      {"/model/end_of_word_suffix", "</w>", "$.model.end_of_word_suffix"},
      {"/model/ignore_merges", 1, "$.model.ignore_merges: must be true or false"},
      {"/model/vocab", Json::array(), "$.model.vocab: must be an object"},
      {"/model/vocab/a", -1, "-1"},
      {"/model/vocab/a", 4000000000, "4000000000"},
      {"/model/vocab/a", 1.5, "must be an integer"},
      {"/model/vocab/a", 98, "same id"},
      {"/model/vocab/ab", nullptr, "must be an integer"},
      {"/model/merges", "a b", "$.model.merges: must be an array"},
      {"/model/merges/1", "a b c", "$.model.merges[1]"},
      {"/model/merges/1", Json::array({"a"}), "$.model.merges[1]"},
      {"/model/merges/1", "a q", "needs the token 'aq'"},
      {"/normalizer", {{"type", "NFKC"}}, "$.normalizer.type"},
      {"/normalizer", "NFC", "$.normalizer: must be an object"},
      {"/pre_tokenizer", nullptr, "$.pre_tokenizer"},
      {"/pre_tokenizer/type", "Metaspace", "Metaspace"},
      {"/pre_tokenizer/add_prefix_space", true, "$.pre_tokenizer.add_prefix_space"},
      {"/pre_tokenizer", {{"type", "Digits"}}, "no ByteLevel"},
      {"/decoder/type", "WordPiece", "$.decoder.type"},
      {"/added_tokens/0/lstrip", true, "$.added_tokens[0].lstrip"},
      {"/added_tokens/0/rstrip", true, "$.added_tokens[0].rstrip"},
      {"/added_tokens/0/single_word", true, "$.added_tokens[0].single_word"},
      {"/added_tokens/0/content", "", "added token 262"},
      {"/added_tokens/0/content", "a", "another id"},
      {"/added_tokens/0/content", 5, "$.added_tokens[0].content"},
      {"/added_tokens/0/id", 97, "another token of this id"},
      {"/added_tokens/0/id", 263, "added twice"},
      {"/added_tokens/1/content", "<tool>", "added twice"},
      {"/added_tokens/1", 3, "$.added_tokens[1]"},
  };
  for (const Refusal& c : cases) {
    Json json = testing::tiny_tokenizer();
    json[Json::json_pointer(c.pointer)] = c.value;
    EXPECT_THAT(refusal(json), HasSubstr(c.message)) << c.pointer << " = " << c.value;
    EXPECT_THAT(refusal(json), HasSubstr("tiny.json")) << c.pointer;
  }
  Json json = testing::tiny_tokenizer();
  json["model"].erase("vocab");
  EXPECT_THAT(refusal(json), HasSubstr("$.model.vocab"));
  json = testing::tiny_tokenizer();
  json["model"]["unk_token"] = "?";
  EXPECT_THAT(refusal(json), HasSubstr("no error"));
  json["model"]["vocab"].erase("!");
  EXPECT_THAT(refusal(json), HasSubstr("unknown token"));
}

TEST(TokenizerFile, RefusesHostilePatterns) {
  for (const char* pattern : {"", "(", "a\\", "[a", "\\w+", "\\Kx", "a\\Cb", "(?:(?:a{60000}){60000}){60000}",
                              "\\p{Nope}", "(?C1)\\R", "\\Qa\\E"}) {
    EXPECT_THAT(refusal(with_split(pattern, "Isolated", false)), HasSubstr("pre_tokenizer")) << pattern;
  }
  EXPECT_THAT(refusal(with_split(std::string(100'000, 'a'), "Isolated", false)), HasSubstr("100000 bytes"));
  EXPECT_THAT(refusal(with_split("a", "MergedWithNext", false)), HasSubstr("MergedWithNext"));
  const Tokenizer slow = load(with_split("(a+)+$", "Isolated", false));
  EXPECT_THROW(slow.encode(std::string(5000, 'a') + "b"), Error);
  const Tokenizer deep = load(with_split("(?:(a)|b|(?R)c)+x", "Isolated", false));
  try {
    deep.encode(std::string(300'000, 'a'));
  } catch (const Error&) {
  }
}

TEST(TokenizerFile, SurvivesTruncationAndFlippedBytes) {
  const std::string good = testing::tiny_tokenizer().dump();
  const unsigned seed = 11;
  SCOPED_TRACE(seed);
  std::mt19937 random(seed);
  for (int round = 0; round < 400; ++round) {
    std::string bad = good;
    if (round % 4 == 0) bad.resize(random() % bad.size());
    for (int flips = static_cast<int>(random() % 4); flips > 0 && !bad.empty(); --flips) {
      bad[random() % bad.size()] = static_cast<char>(random());
    }
    try {
      Tokenizer::from_json(bad, "bad.json").encode("abc the <|im_start|> 123", true);
    } catch (const Error& e) {
      EXPECT_THAT(e.what(), HasSubstr("bad.json"));
    }
  }
  EXPECT_THROW(Tokenizer::from_json(std::string(1'000'000, '['), "deep.json"), Error);
  EXPECT_THROW(Tokenizer::from_json_file("/no/such/tokenizer.json"), Error);
  EXPECT_THROW(Tokenizer::from_gguf("/no/such/model.gguf"), Error);
}

}  // namespace
}  // namespace msa
