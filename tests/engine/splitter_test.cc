#include "engine/splitter.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <filesystem>
#include <random>

#include "core/error.h"
#include "tokenizer/tokenizer.h"

namespace msa {
namespace {

using testing::Each;

/// A token for every four bytes of a word, the space in front included, as byte pairs would make; line ends are tokens.
int count_quarters(std::string_view text) {
  int n = 0;
  for (size_t i = 0; i < text.size();) {
    if (text[i] == '\n') {
      ++n, ++i;
      continue;
    }
    size_t end = i + 1;
    while (end < text.size() && text[end] != ' ' && text[end] != '\n') ++end;
    n += static_cast<int>((end - i + 3) / 4);
    i = end;
  }
  return n;
}

bool is_whole_utf8(std::string_view text) {
  const auto is_continuation = [](char c) { return (static_cast<unsigned char>(c) & 0xC0) == 0x80; };
  return text.empty() || (!is_continuation(text.front()) && static_cast<unsigned char>(text.back()) < 0xC0);
}

/// What every split promises. Returns the text of the parts put together, overlaps counted once.
std::string check_parts(const std::vector<TextPart>& parts, const std::string& text, int max_tokens) {
  std::string whole;
  size_t covered = 0;  // bytes of text
  size_t from = 0;
  for (size_t i = 0; i < parts.size(); ++i) {
    const TextPart& part = parts[i];
    EXPECT_EQ(part.index, static_cast<int>(i));
    EXPECT_EQ(part.count, static_cast<int>(parts.size()));
    EXPECT_FALSE(part.text.empty());
    EXPECT_LE(count_quarters(part.text), max_tokens);
    EXPECT_TRUE(is_whole_utf8(part.text)) << part.text;
    const size_t at = text.find(part.text, from);
    EXPECT_NE(at, std::string::npos) << "part " << i << " is not in the text, or out of order";
    if (at == std::string::npos) return whole;
    for (size_t b = covered; b < at; ++b) EXPECT_TRUE(isspace(static_cast<unsigned char>(text[b]))) << "byte " << b;
    const size_t end = at + part.text.size();
    if (end > covered) whole += text.substr(std::max(at, covered), end - std::max(at, covered));
    covered = std::max(covered, end);
    from = at;
  }
  for (size_t b = covered; b < text.size(); ++b) EXPECT_TRUE(isspace(static_cast<unsigned char>(text[b])));
  return whole;
}

/// Numbered words, so that no part occurs twice in the text.
std::string numbered_words(int n, const std::function<std::string(int)>& behind) {
  std::string text;
  for (int i = 0; i < n; ++i) text.append("w").append(std::to_string(100000 + i)).append(behind(i));
  return text;
}

TEST(SplitterTest, ShortTextStaysWhole) {
  const auto parts = split_text(count_quarters, "  two words\n", 10, 2);
  ASSERT_EQ(parts.size(), 1u);
  EXPECT_EQ(parts[0].text, "  two words\n");
  EXPECT_EQ(parts[0].count, 1);
  EXPECT_TRUE(split_text(count_quarters, "", 10, 2).empty());
  EXPECT_TRUE(split_text(count_quarters, " \n ", 10, 2).empty());
}

TEST(SplitterTest, FitsExactly) {
  const std::string text = numbered_words(50, [](int) { return " "; });
  const int n = count_quarters(text);
  EXPECT_EQ(split_text(count_quarters, text, n, 0).size(), 1u);
  EXPECT_EQ(split_text(count_quarters, text, n - 2, 0).size(), 2u);
}

TEST(SplitterTest, PrefersParagraphsThenSentencesThenLinesThenWords) {
  const auto last_third_ends = [](const char* best) {
    const std::string text = numbered_words(4000, [&](int i) -> std::string {
      return i % 10 == 3 ? best : i % 3 == 0 ? "\n" : " ";
    });
    const auto parts = split_text(count_quarters, text, 100, 0);
    check_parts(parts, text, 100);
    std::vector<std::string> ends;
    for (size_t i = 0; i + 1 < parts.size(); ++i) {
      ends.push_back(text.substr(text.find(parts[i].text) + parts[i].text.size() - 1, 3));
    }
    return ends;
  };
  EXPECT_THAT(last_third_ends("\n\n"), Each(testing::HasSubstr("\n\n")));
  EXPECT_THAT(last_third_ends(". "), Each(testing::StartsWith(". ")));
  EXPECT_THAT(last_third_ends(".\u201d "), Each(testing::EndsWith(" w")));
  EXPECT_THAT(last_third_ends(" "), Each(testing::HasSubstr("\n")));
}

TEST(SplitterTest, NeighboursOverlap) {
  const std::string text = numbered_words(3000, [](int i) { return i % 7 == 6 ? ". " : " "; });
  const auto parts = split_text(count_quarters, text, 200, 40);
  check_parts(parts, text, 200);
  for (size_t i = 0; i + 1 < parts.size(); ++i) {
    const size_t end = text.find(parts[i].text) + parts[i].text.size();
    const size_t next = text.find(parts[i + 1].text);
    ASSERT_LT(next, end);
    const int overlap = count_quarters(text.substr(next, end - next));
    EXPECT_GE(overlap, 18);
    EXPECT_LE(overlap, 41);
    EXPECT_EQ(text[next - 2], '.') << "an overlap begins with a sentence where one is near";
  }
}

TEST(SplitterTest, TextWithoutSpaces) {
  std::string text;
  for (int i = 0; i < 3000; ++i) {
    // Three-byte characters that do not repeat soon, a full stop behind every 20th.
    const int c = 0x4E00 + i;
    text += {static_cast<char>(0xE0 | c >> 12), static_cast<char>(0x80 | (c >> 6 & 63)),
             static_cast<char>(0x80 | (c & 63))};
    if (i % 20 == 19) text += "\u3002";
  }
  const auto parts = split_text(count_quarters, text, 100, 10);
  check_parts(parts, text, 100);
  for (size_t i = 0; i + 1 < parts.size(); ++i) EXPECT_THAT(parts[i].text, testing::EndsWith("\u3002"));
}

TEST(SplitterTest, LongRunsOfOneKind) {
  for (const std::string& run : {std::string(1000000, 'a'), "a" + std::string(1000000, ' ') + "b",
                                 std::string(500000, '\x80'), std::string(300000, '\n') + "x y"}) {
    for (const TextPart& part : split_text(count_quarters, run, 64, 8)) {
      ASSERT_LE(count_quarters(part.text), 64);
      ASSERT_FALSE(part.text.empty());
    }
  }
}

TEST(SplitterTest, TinyLimits) {
  const std::string text = "ab cd \u20ac\U0001F600 efghijklmnop";
  for (int max_tokens = 1; max_tokens < 8; ++max_tokens) {
    for (int overlap = 0; overlap < 10; ++overlap) {
      EXPECT_FALSE(split_text(count_quarters, text, max_tokens, overlap).empty());
      check_parts(split_text(count_quarters, text, max_tokens, overlap), text, max_tokens);
    }
  }
  // Every byte a token: the characters of four bytes do not fit and stand alone.
  const TokenCounter bytes = [](std::string_view piece) { return static_cast<int>(piece.size()); };
  for (const TextPart& part : split_text(bytes, text, 2, 1)) EXPECT_TRUE(is_whole_utf8(part.text));
  EXPECT_THROW(split_text(bytes, text, 0, 0), Error);
  EXPECT_THROW(split_text(bytes, text, 5, -1), Error);
}

TEST(SplitterTest, CountsThatDoNotAddUpStillKeepTheLimit) {
  // Worse than any tokenizer: a whole has half as many tokens again as its words.
  const TokenCounter count = [](std::string_view piece) {
    const int n = count_quarters(piece);
    return piece.size() > 60 ? n + n / 2 : n;
  };
  const std::string text = numbered_words(3000, [](int) { return " "; });
  for (const TextPart& part : split_text(count, text, 100, 20)) EXPECT_LE(count(part.text), 100);
}

TEST(SplitterTest, RandomTexts) {
  const unsigned seed = std::random_device{}();
  SCOPED_TRACE("seed " + std::to_string(seed));
  std::mt19937 random(seed);
  for (int round = 0; round < 100; ++round) {
    const char* const gaps[] = {" ", "", "  ", "\n", "\n\n", ". ", "\u3002", "\t", "! ", "\u00e9"};
    const std::string text = numbered_words(300, [&](int) { return std::string(gaps[random() % std::size(gaps)]); });
    const int max_tokens = 12 + static_cast<int>(random() % 100);  // enough that no part occurs twice
    check_parts(split_text(count_quarters, text, max_tokens, static_cast<int>(random() % 60)), text, max_tokens);
  }
}

TEST(SplitterTest, CountsEachByteAFewTimes) {
  for (const int n_words : {10'000, 300'000}) {
    const std::string text = numbered_words(n_words, [](int i) { return i % 9 == 0 ? ".\n" : " "; });
    size_t counted_bytes = 0;
    const TokenCounter count = [&](std::string_view piece) {
      return counted_bytes += piece.size(), count_quarters(piece);
    };
    split_text(count, text, 512, 64);
    EXPECT_LT(counted_bytes, 3 * text.size());
    counted_bytes = 0;
    split_text(count, text, 512, 511);
    EXPECT_LT(counted_bytes, 5 * text.size());
  }
}

TEST(SplitterTest, PartsOfARealTokenizerFit) {
  const std::filesystem::path file = std::filesystem::path(MSA_SOURCE_DIR) / "models/smollm2-135m-msa/base.gguf";
  if (!std::filesystem::exists(file)) GTEST_SKIP() << file << " is not there; set-up fetches it";
  const Tokenizer tokenizer = Tokenizer::from_gguf(file.string());
  std::string text;
  for (int i = 0; i < 400; ++i) {
    text += "Sentence number " + std::to_string(i) + " tells of Königsberg, co-operation and x_" +
            std::to_string(i * i) + " = f(y);  it ends here." + (i % 5 == 4 ? "\n\n" : " ");
  }
  const auto parts = split_text(tokenizer, text, 128, 16);
  ASSERT_GT(parts.size(), 10u);
  for (const TextPart& part : parts) {
    EXPECT_LE(tokenizer.encode(part.text).size(), 128u);
    EXPECT_THAT(part.text, testing::EndsWith("."));
  }
}

}  // namespace
}  // namespace msa
