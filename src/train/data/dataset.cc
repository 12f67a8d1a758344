#include "train/data/dataset.h"

#include <algorithm>
#include <string_view>
#include <unordered_map>
#include <utility>

#include "core/error.h"
#include "io/checksum.h"
#include "io/text.h"

namespace msa::train {
namespace {

constexpr int64_t kGrain = 64;  // texts handed to a worker at a time

/// Of the words alone: runs of white space count as one space.
uint64_t hash_of_words(std::string_view text) {
  std::string words;
  words.reserve(text.size());
  for (const char c : text) {
    if (c == ' ' || c == '\n' || c == '\t') {
      if (!words.empty() && words.back() != ' ') words += ' ';
    } else {
      words += c;
    }
  }
  if (words.ends_with(' ')) words.pop_back();
  return xxh3_64(words.data(), words.size());
}

void index_questions(Dataset& dataset) {
  const auto n = static_cast<size_t>(dataset.documents.size());
  dataset.asked_starts.assign(n + 1, 0);
  for (const BeirQuestion& question : dataset.questions) {
    for (const int32_t d : question.gold) ++dataset.asked_starts[static_cast<size_t>(d) + 1];
  }
  for (size_t d = 0; d < n; ++d) dataset.asked_starts[d + 1] += dataset.asked_starts[d];
  dataset.asked.resize(static_cast<size_t>(dataset.asked_starts[n]));
  std::vector<int64_t> next(dataset.asked_starts.begin(), dataset.asked_starts.end() - 1);
  for (size_t q = 0; q < dataset.questions.size(); ++q) {
    for (const int32_t d : dataset.questions[q].gold) {
      dataset.asked[static_cast<size_t>(next[static_cast<size_t>(d)]++)] = static_cast<int32_t>(q);
    }
  }
}

/// What answers a question may answer another of the same words, too.
void share_golds_of_same_words(std::vector<BeirQuestion>& questions) {
  std::unordered_map<std::string_view, std::vector<int32_t>> golds;
  for (const BeirQuestion& question : questions) {
    auto& all = golds[question.text];
    all.insert(all.end(), question.gold.begin(), question.gold.end());
  }
  for (BeirQuestion& question : questions) {
    for (const int32_t d : golds[question.text]) {
      const auto has = [d](const std::vector<int32_t>& list) {
        return std::find(list.begin(), list.end(), d) != list.end();
      };
      if (!has(question.gold) && !has(question.possible)) question.possible.push_back(d);
    }
  }
}

}  // namespace

TokenArrays tokenise(int64_t n, const std::function<std::string(int64_t)>& text, const Tokenizer& tokenizer,
                     int64_t max_tokens, ThreadPool& pool) {
  // Each worker fills arrays of its own; its texts are contiguous, so the arrays follow one another.
  std::vector<TokenArrays> parts(static_cast<size_t>(pool.threads()));
  pool.parallel_for(n, kGrain, [&](int64_t begin, int64_t end, int worker) {
    for (int64_t i = begin; i < end; ++i) {
      const std::vector<int32_t> tokens = tokenizer.encode(text(i));
      const size_t kept = std::min(tokens.size(), static_cast<size_t>(max_tokens));
      parts[static_cast<size_t>(worker)].append(std::span(tokens).first(kept));
    }
  });
  TokenArrays all = std::move(parts[0]);
  for (size_t p = 1; p < parts.size(); ++p) {
    const auto offset = static_cast<int64_t>(all.tokens.size());
    all.tokens.insert(all.tokens.end(), parts[p].tokens.begin(), parts[p].tokens.end());
    for (size_t i = 1; i < parts[p].starts.size(); ++i) all.starts.push_back(parts[p].starts[i] + offset);
    parts[p] = {};
  }
  MSA_CHECK(all.size() == n);
  return all;
}

Dataset make_dataset(BeirSet&& set, const Tokenizer& tokenizer, const DocumentForm& form, ThreadPool& pool) {
  Dataset dataset;
  dataset.folder = set.folder;
  const auto n = static_cast<int64_t>(set.documents.size());
  const auto text = [&](int64_t i) {
    const BeirDocument& document = set.documents[static_cast<size_t>(i)];
    return form.titles || is_blank(document.text) ? document.full_text() : document.text;
  };
  dataset.documents = tokenise(n, text, tokenizer, form.max_tokens, pool);
  int32_t article = 0;
  for (size_t i = 0; i < set.documents.size(); ++i) {
    BeirDocument& document = set.documents[i];
    if (dataset.documents[static_cast<int64_t>(i)].empty()) {
      throw Error("the text of document '" + document.id + "' gives no tokens", set.folder, "remove the document");
    }
    if (i > 0 && document.title != set.documents[i - 1].title) ++article;
    dataset.articles.push_back(article);
    dataset.text_hashes.push_back(hash_of_words(is_blank(document.text) ? document.title : document.text));
    dataset.document_ids.push_back(std::move(document.id));
  }
  dataset.questions = std::move(set.questions);
  share_golds_of_same_words(dataset.questions);
  index_questions(dataset);
  return dataset;
}

}  // namespace msa::train
