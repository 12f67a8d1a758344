#include <utility>

#include "bank/transfer.h"

namespace msa {
namespace {

constexpr int64_t kCommitBytes = int64_t{64} << 20;

enum class Fate { kUnchanged, kConflict, kKeepsId, kNeedsId };

/// Documents on their way into one commit.
struct Batch {
  std::vector<DocumentId> ids;
  std::vector<DocumentInput> inputs;
  std::vector<EncodedDocument> documents;
  int64_t bytes = 0;

  void push(DocumentId id, DocumentInput input, EncodedDocument document, int64_t size) {
    ids.push_back(id);
    inputs.push_back(std::move(input));
    documents.push_back(std::move(document));
    bytes += size;
  }
};

class Import {
 public:
  Import(Bank& bank, const std::filesystem::path& file, const Bank::Reencode& reencode)
      : bank_(bank), file_(file), reencode_(reencode) {}

  ImportResult run(const std::function<void(int64_t, int64_t)>& progress) {
    examine();
    ExportReader reader(file_);
    int64_t done = 0;
    while (auto document = reader.next()) {
      take(std::move(*document));
      if (progress) progress(++done, reader.n_documents());
    }
    commit(kept_);
    commit(moved_);
    return std::move(result_);
  }

 private:
  Fate fate(const TransferredDocument& d) const {
    const std::string hash = d.input.withheld_hash.empty() ? content_hash(d.input.text) : d.input.withheld_hash;
    const auto known = d.input.external_id.empty() ? bank_.find_unnamed(d.input.name_space, hash)
                                                   : bank_.find_by_external_id(d.input.name_space, d.input.external_id);
    if (known) return known->content_hash == hash ? Fate::kUnchanged : Fate::kConflict;
    return bank_.has_id(d.id) ? Fate::kNeedsId : Fate::kKeepsId;
  }

  /// Reads the whole file before anything is changed.
  void examine() {
    ExportReader reader(file_);
    if (reader.shape() != bank_.shape()) {
      throw Error("the file belongs to model " + reader.shape().fingerprint + ", the bank to model " +
                      bank_.shape().fingerprint,
                  file_.string(), "import it into a bank of its own model, then: msa reencode");
    }
    int64_t impossible = 0;
    DocumentId last = 0;
    while (const auto document = reader.next()) {
      last = document->id;
      if (fate(*document) == Fate::kNeedsId && (!reader.has_text() || !reencode_)) ++impossible;
    }
    if (impossible > 0) {
      throw Error(std::to_string(impossible) +
                      " documents have ids that the bank gave to others, and cannot be encoded " +
                      (reader.has_text() ? "without the model" : "anew without their text"),
                  file_.string(), reader.has_text() ? "give --model" : "export with text");
    }
    bank_.skip_ids_below(last + 1);
  }

  void take(TransferredDocument&& d) {
    const int64_t size = d.encoded.n_chunks * bank_.shape().chunk_bytes();
    switch (fate(d)) {
      case Fate::kUnchanged: ++result_.unchanged; return;
      case Fate::kConflict: result_.conflicts.push_back(d.input.external_id); return;
      case Fate::kKeepsId:
        result_.kept.push_back(d.id);
        kept_.push(d.id, std::move(d.input), std::move(d.encoded), size);
        break;
      case Fate::kNeedsId: {
        const DocumentId id = bank_.reserve_ids(1)[0];
        result_.reencoded.emplace_back(d.id, id);
        EncodedDocument encoded = reencode_(id, d.input.text);
        moved_.push(id, std::move(d.input), std::move(encoded), size);
        break;
      }
    }
    if (kept_.bytes >= kCommitBytes) commit(kept_);
    if (moved_.bytes >= kCommitBytes) commit(moved_);
  }

  void commit(Batch& batch) {
    const AddResult added = bank_.add(batch.ids, batch.inputs, batch.documents);
    if (!added.committed()) {
      throw Error("the external id \"" + batch.inputs[added.duplicates[0]].external_id + "\" comes twice",
                  file_.string(), "export the bank again");
    }
    batch = {};
  }

  Bank& bank_;
  const std::filesystem::path& file_;
  const Bank::Reencode& reencode_;
  Batch kept_, moved_;
  ImportResult result_;
};

}  // namespace

ImportResult import_file(Bank& bank, const std::filesystem::path& file, const Bank::Reencode& reencode,
                         const std::function<void(int64_t, int64_t)>& progress) {
  return Import(bank, file, reencode).run(progress);
}

}  // namespace msa
