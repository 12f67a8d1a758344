#include "eval/distractors.h"

#include <xxhash.h>

#include <algorithm>
#include <filesystem>
#include <utility>

#include "core/error.h"
#include "eval/answer_metrics.h"
#include "eval/score_table.h"
#include "io/text.h"

namespace msa::eval {
namespace {

constexpr size_t kShingleWords = 8;
constexpr size_t kMaxLearntWords = 2'000'000;
constexpr uint64_t kSpliceOneIn = 4;

/// Words of `text` as views, split at white space.
std::vector<std::string_view> words_of(std::string_view text) {
  std::vector<std::string_view> words;
  for (size_t at = 0; (at = text.find_first_not_of(" \t\r\n", at)) != std::string_view::npos;) {
    const size_t end = std::min(text.find_first_of(" \t\r\n", at), text.size());
    words.push_back(text.substr(at, end - at));
    at = end;
  }
  return words;
}

/// Hashes of all runs of kShingleWords normalised words; of the whole where it is shorter.
std::vector<uint64_t> shingles_of(std::string_view text) {
  const std::string normalised = normalise_answer(text);
  const auto words = words_of(normalised);
  std::vector<uint64_t> hashes;
  const size_t length = std::min(kShingleWords, words.size());
  for (size_t i = 0; length > 0 && i + length <= words.size(); ++i) {
    const char* const begin = words[i].data();
    const char* const end = words[i + length - 1].data() + words[i + length - 1].size();
    hashes.push_back(XXH3_64bits(begin, static_cast<size_t>(end - begin)));
  }
  return hashes;
}

/// The corpus file of a folder, or the file itself.
std::string corpus_file(const std::string& path) {
  if (!std::filesystem::is_directory(path)) return path;
  const std::string file = find_beir_file(path, "corpus.jsonl");
  if (file.empty()) throw Error("no corpus.jsonl in it", path, "give a BEIR folder or a corpus file");
  return file;
}

std::string set_name(const std::string& path) {
  const auto folder = std::filesystem::path(corpus_file(path)).parent_path().filename().string();
  return folder.empty() ? "corpus" : folder;
}

}  // namespace

void GoldFilter::add_gold(std::string_view text) {
  for (const uint64_t hash : shingles_of(text)) shingles_.insert(hash);
}

bool GoldFilter::repeats_gold(std::string_view text) const {
  const std::vector<uint64_t> shingles = shingles_of(text);
  const auto shared =
      std::count_if(shingles.begin(), shingles.end(), [&](uint64_t h) { return shingles_.contains(h); });
  return shared > 0 && shared * 5 >= static_cast<std::ptrdiff_t>(shingles.size());
}

void TextSplicer::learn(std::string_view text) {
  const auto words = words_of(text);
  if (words.empty() || words_.size() + words.size() > kMaxLearntWords) return;
  for (const std::string_view word : words) {
    const auto [id, is_new] = ids_.emplace(std::string(word), static_cast<uint32_t>(vocabulary_.size()));
    if (is_new) {
      vocabulary_.emplace_back(word);
      places_.emplace_back();
    }
    places_[id->second].push_back(static_cast<uint32_t>(words_.size()));
    words_.push_back(id->second);
  }
  lengths_.push_back(static_cast<uint32_t>(words.size()));
}

std::string TextSplicer::next() {
  MSA_CHECK(!empty());
  const uint32_t length = lengths_[draw_below(random_, lengths_.size())];
  size_t at = draw_below(random_, words_.size());
  std::string text;
  for (uint32_t i = 0; i < length; ++i) {
    if (i > 0) text += ' ';
    text += vocabulary_[words_[at]];
    if (draw_below(random_, kSpliceOneIn) == 0) {
      const auto& places = places_[words_[at]];
      at = places[draw_below(random_, places.size())];
    }
    at = (at + 1) % words_.size();
  }
  return text;
}

const char* name_of(Origin origin) {
  constexpr const char* kNames[kOrigins] = {"gold", "set", "other_corpora", "synthetic"};
  return kNames[static_cast<int>(origin)];
}

FillStream::FillStream(const BeirSet& set, std::span<const int32_t> gold, std::vector<std::string> corpora,
                       uint64_t seed)
    : set_(set), order_(gold.begin(), gold.end()), n_gold_(gold.size()), corpora_(std::move(corpora)), splicer_(seed) {
  const std::unordered_set<int32_t> is_gold(gold.begin(), gold.end());
  for (size_t d = 0; d < set.documents.size(); ++d) {
    if (!is_gold.contains(static_cast<int32_t>(d))) order_.push_back(static_cast<int32_t>(d));
  }
  for (const int32_t d : gold) filter_.add_gold(set.documents[static_cast<size_t>(d)].text);
}

FillDocument FillStream::next() {
  if (auto document = next_of_set()) return *std::move(document);
  if (auto document = next_of_corpora()) return *std::move(document);
  return next_synthetic();
}

std::optional<FillDocument> FillStream::next_of_set() {
  if (position_ == order_.size()) return std::nullopt;
  const BeirDocument& document = set_.documents[static_cast<size_t>(order_[position_])];
  const Origin origin = position_++ < n_gold_ ? Origin::kGold : Origin::kSet;
  if (origin != Origin::kGold) splicer_.learn(document.full_text());
  return FillDocument{document.id, document.full_text(), origin};
}

std::optional<FillDocument> FillStream::next_of_corpora() {
  for (; corpus_ < corpora_.size(); ++corpus_, lines_.reset()) {
    const std::string path = corpus_file(corpora_[corpus_]);
    if (lines_ == nullptr) lines_ = std::make_unique<LineReader>(path, path.ends_with(".zst"), kMaxBeirLineBytes);
    std::string_view line;
    while (lines_->next(line)) {
      if (is_blank(line)) continue;
      BeirDocument document = parse_beir_document(line, path + ":" + std::to_string(lines_->line_number()));
      std::string text = document.full_text();
      if (is_blank(text)) continue;
      if (filter_.repeats_gold(text)) {
        ++left_out_;
        continue;
      }
      splicer_.learn(text);
      return FillDocument{set_name(corpora_[corpus_]) + "/" + document.id, std::move(text), Origin::kOther};
    }
  }
  return std::nullopt;
}

FillDocument FillStream::next_synthetic() {
  if (splicer_.empty()) {
    throw Error("there is no text to make synthetic documents from", "--distractors",
                "give a corpus, or choose smaller --sizes");
  }
  std::string text = splicer_.next();
  while (filter_.repeats_gold(text)) text = splicer_.next();
  return {"synthetic/" + std::to_string(++synthetic_), std::move(text), Origin::kSynthetic};
}

}  // namespace msa::eval
