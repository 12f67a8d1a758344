// msa bench bank: what a bank of many documents costs to fill, to add to, to open, and on the disk.
#include <malloc.h>
#include <unistd.h>

#include <algorithm>
#include <filesystem>
#include <fstream>
#include <numeric>
#include <random>

#include "cli/bench.h"
#include "cli/progress.h"
#include "cli/scratch_folder.h"

namespace msa::cli {
namespace {

namespace fs = std::filesystem;
using Clock = std::chrono::steady_clock;

constexpr int64_t kCommitDocuments = 2000;  // of one commit while the bank is filled
constexpr int kSingleAdds = 256;            // enough to merge their segments twice over
constexpr int kLargeAdds = 5;

BankShape shape_of(const BankBenchOptions& o) {
  BankShape shape;
  for (int l = 0; l < o.layers; ++l) shape.routing_layers.push_back(l);
  shape.kv_heads = o.kv_heads;
  shape.head_dim = o.head_dim;
  shape.fingerprint = "bench";
  return shape;
}

/// Documents of random vectors and text, `chunks` chunks each.
class Documents {
 public:
  explicit Documents(const BankBenchOptions& options) : options_(options), shape_(shape_of(options)) {}

  void add(Bank& bank, int64_t count) {
    const std::vector<DocumentId> ids = bank.reserve_ids(count);
    std::vector<DocumentInput> inputs;
    std::vector<EncodedDocument> documents;
    for (const DocumentId id : ids) {
      inputs.push_back({text(), "document-" + std::to_string(id), "", {}});
      documents.push_back(vectors());
    }
    const auto start = Clock::now();
    if (!bank.add(ids, inputs, documents).committed()) throw Error("a name came twice", bank.path().string());
    ms_ = ms_since(start);
  }
  double ms() const { return ms_; }  // of the last addition, without making the documents

 private:
  std::string text() {
    std::string out(static_cast<size_t>(options_.chunks * options_.text_bytes), ' ');
    for (size_t i = 0; i < out.size(); ++i) {
      if (i % 6 != 5) out[i] = static_cast<char>('a' + random_() % 26);
    }
    return out;
  }
  EncodedDocument vectors() {
    EncodedDocument d;
    d.n_chunks = options_.chunks;
    d.n_tokens = d.n_chunks * shape_.chunk_tokens;
    const auto bytes = static_cast<size_t>(d.n_chunks * shape_.row_bytes());
    for (int l = 0; l < shape_.n_layers(); ++l) {
      fill(d.keys.emplace_back(bytes), bytes);
      fill(d.content.emplace_back(2 * bytes), 2 * bytes);
    }
    return d;
  }
  void fill(Buffer& buffer, size_t bytes) {
    auto* to = static_cast<bf16*>(buffer.data());
    for (size_t i = 0; i < bytes / sizeof(bf16); ++i) to[i] = to_bf16(static_cast<float>(random_() % 2048) / 1024 - 1);
  }

  BankBenchOptions options_;
  BankShape shape_;
  std::minstd_rand random_{1};
  double ms_ = 0;
};

struct AddCost {
  double one_ms = 0, one_mean_ms = 0;  // a commit of one document
  double many_us = 0;                  // a document of a commit of kCommitDocuments
};

double median(std::vector<double>& values) {
  std::sort(values.begin(), values.end());
  return values[values.size() / 2];
}

/// Of each bank, in turn, so that all meet the same disk.
std::vector<AddCost> add_costs(std::span<Bank* const> banks, Documents& documents) {
  std::vector<std::vector<double>> one(banks.size()), many(banks.size());
  const auto measure = [&](int times, int64_t count, std::vector<std::vector<double>>& ms) {
    for (int i = 0; i < times; ++i) {
      for (size_t b = 0; b < banks.size(); ++b) {
        documents.add(*banks[b], count);
        ms[b].push_back(documents.ms());
      }
    }
  };
  measure(kSingleAdds, 1, one);
  measure(kLargeAdds, kCommitDocuments, many);
  std::vector<AddCost> costs;
  for (size_t b = 0; b < banks.size(); ++b) {
    const double mean = std::accumulate(one[b].begin(), one[b].end(), 0.0) / kSingleAdds;
    costs.push_back({median(one[b]), mean, median(many[b]) / kCommitDocuments * 1e3});
  }
  return costs;
}

int64_t folder_bytes(const fs::path& folder) {
  int64_t bytes = 0;
  for (const auto& entry : fs::recursive_directory_iterator(folder)) {
    if (entry.is_regular_file()) bytes += static_cast<int64_t>(entry.file_size());
  }
  return bytes;
}

double heap_mib() {
  const struct mallinfo2 use = ::mallinfo2();
  return static_cast<double>(use.uordblks + use.hblkhd) / (1 << 20);
}

/// Pages of files that this process has touched.
double mapped_mib() {
  std::ifstream in("/proc/self/statm");
  int64_t total = 0, resident = 0, shared = 0;
  in >> total >> resident >> shared;
  return static_cast<double>(shared * ::sysconf(_SC_PAGESIZE)) / (1 << 20);
}

struct OpenCost {
  double ms = 1e30, heap_mib = 0, mapped_mib = 0;
};

OpenCost open_cost(const fs::path& folder, BankMode mode) {
  OpenCost best;
  for (int i = 0; i < 3; ++i) {
    const double heap = heap_mib(), mapped = mapped_mib();
    const auto start = Clock::now();
    const auto bank = Bank::open(folder, mode);
    const auto snapshot = bank->snapshot();
    const double ms = ms_since(start);
    if (ms < best.ms) best = {ms, heap_mib() - heap, mapped_mib() - mapped};
  }
  return best;
}

void fill(Bank& bank, Documents& documents, int64_t count) {
  ProgressBar bar("filling", count, "documents");
  for (int64_t done = 0; done < count; done += kCommitDocuments) {
    documents.add(bank, std::min(kCommitDocuments, count - done));
    bar.update(std::min(count, done + kCommitDocuments));
  }
}

}  // namespace

Json measure_bank(const BankBenchOptions& o) {
  const ScratchFolder folder(o.folder, "bench-full"), empty_folder(o.folder, "bench-empty");
  const BankShape shape = shape_of(o);
  Documents documents(o);
  auto bank = Bank::create_or_open(folder.path(), shape, BankMode::kWrite);
  const auto start = Clock::now();
  fill(*bank, documents, o.documents);
  const double fill_ms = ms_since(start);
  const auto empty_bank = Bank::create_or_open(empty_folder.path(), shape, BankMode::kWrite);
  Bank* const both[] = {empty_bank.get(), bank.get()};
  const std::vector<AddCost> costs = add_costs(both, documents);
  const AddCost &empty = costs[0], &full = costs[1];
  bank.reset();
  const OpenCost reader = open_cost(folder.path(), BankMode::kRead),
                 writer = open_cost(folder.path(), BankMode::kWrite);

  const BankStatistics s = Bank::open(folder.path(), BankMode::kRead)->statistics();
  const auto chunks = static_cast<double>(s.chunks);
  const auto law = static_cast<double>(shape.chunk_bytes());
  const auto segments = static_cast<double>(folder_bytes(folder.path() / "segments")) / chunks;
  const auto all = static_cast<double>(folder_bytes(folder.path())) / chunks;
  const auto text = static_cast<double>(s.text_bytes) / chunks;
  return {
      {"documents", s.documents},
      {"chunks", s.chunks},
      {"segments", s.segments},
      {"fill_seconds", round2(fill_ms / 1e3)},
      {"add_one_ms", {{"empty", round2(empty.one_ms)}, {"full", round2(full.one_ms)}}},
      {"add_one_mean_ms", {{"empty", round2(empty.one_mean_ms)}, {"full", round2(full.one_mean_ms)}}},
      {"add_2000_us_per_document", {{"empty", round2(empty.many_us)}, {"full", round2(full.many_us)}}},
      {"open_ms", {{"reader", round2(reader.ms)}, {"writer", round2(writer.ms)}}},
      {"open_heap_mib", round2(reader.heap_mib)},
      {"open_mapped_mib", round2(reader.mapped_mib)},
      {"bytes_per_chunk", {{"law", law}, {"segments", round2(segments)}, {"all", round2(all)}, {"text", text}}},
      {"over_law_percent",
       {{"segments", round2((segments / law - 1) * 100)}, {"all_but_text", round2(((all - text) / law - 1) * 100)}}}};
}

}  // namespace msa::cli
