// Questions that follow links between documents: those of table cells, and names in sentences.
#pragma once
#include <string>
#include <vector>

#include "train/make_data/page.h"
#include "train/make_data/question.h"
#include "train/make_data/random.h"
#include "train/make_data/table.h"

namespace msa::train {

struct Corpus {
  const std::vector<BeirDocument>& documents;
  const std::vector<std::string>& words;  // [documents] spaced_words of title and text
  const Catalogue& catalogue;
};

/// Cells that link to one document, asked for by other cells of their row, of which at least one stands in that
/// document too, by the column's name and by the table's title.
void make_links(const Corpus& corpus, const Table& table, Random& random, std::vector<Question>& out);

/// Two linked cells of a row, the second named in the first one's document: what the second one's document says of
/// "the developer of Miami Law", where "Developer" is the second one's column.
void make_table_bridges(const Corpus& corpus, const Table& table, Random& random, std::vector<Question>& out);

/// A sentence of the document that names another document: what that one's first sentence says of "the director of
/// the film X". The answer is not in the first document.
void make_text_bridges(const Corpus& corpus, int32_t document, Random& random, std::vector<Question>& out);

}  // namespace msa::train
