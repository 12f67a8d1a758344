// What the first sentence of a document says about the document's subject.
#pragma once
#include <cstdint>
#include <string>
#include <string_view>
#include <unordered_map>
#include <vector>

#include "core/thread_pool.h"
#include "io/beir.h"
#include "train/make_data/sentence.h"

namespace msa::train {

/// A document about one named thing, as an encyclopedia's are. Fields stay empty where the text does not say.
struct Page {
  std::string name;       // the title without a bracket behind it; empty: the document has no usable title
  std::string subject;    // how a question names it: "the Beatles", "David Lee (basketball)" where the name is shared;
                          // empty: another document has the same title
  std::string copula;     // is, was, are, were
  std::string predicate;  // "Portuguese football manager and a former player", as written
  std::string type;       // "Portuguese football manager": fits behind "which"
  std::string noun;       // the last word of the type
  std::string born;       // dates as written
  std::string died;
  bool is_person = false;
  size_t copula_at = 0;  // token of the first sentence without brackets; 0: none found
};

/// The sentences of a document: as written, and without brackets in words.
struct Prose {
  std::vector<std::string_view> sentences;
  std::vector<Tokens> tokens;  // [sentences]
};
/// Views into `text`.
Prose read_prose(std::string_view text);

class Catalogue {
 public:
  Catalogue(const std::vector<BeirDocument>& documents, ThreadPool& pool);

  const Page& page(int32_t document) const { return pages_[static_cast<size_t>(document)]; }
  int32_t size() const { return static_cast<int32_t>(pages_.size()); }
  /// The one document of this name or title; -1: none, or several.
  int32_t find(std::string_view name) const;

 private:
  std::vector<Page> pages_;
  std::unordered_map<std::string, int32_t> by_name_;  // -1: shared
};

}  // namespace msa::train
