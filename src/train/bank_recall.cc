#include "train/bank_recall.h"

#include <algorithm>
#include <chrono>
#include <set>

#include "train/losses.h"

namespace msa::train {
namespace {

constexpr int64_t kPackTokens = 16384;  // of one forward pass over documents

/// Questions routed together: their scores against every chunk lie on the device at once, in every layer.
int64_t questions_at_once(int64_t n_chunks) {
  return std::clamp<int64_t>((int64_t{1} << 21) / std::max<int64_t>(1, n_chunks), 1, 32);
}

/// Chunk means of a whole bank, by layer; the documents' chunks one after another.
struct EncodedBank {
  std::vector<LayerMemory> memory;
  std::vector<int64_t> chunk_starts{0};
  int64_t tokens = 0;
};

class BankEncoder {
 public:
  BankEncoder(const Network& network, const NetworkTensors& w, std::vector<int32_t> head, torch::Device device)
      : network_(network), w_(w), head_(std::move(head)), device_(device), parts_(w.layers.size()) {}

  void add(const std::vector<int32_t>& document) {
    if (starts_.empty()) {
      tokens_ = head_;
      starts_ = {0, static_cast<int64_t>(head_.size())};
    }
    tokens_.insert(tokens_.end(), document.begin(), document.end());
    starts_.push_back(static_cast<int64_t>(tokens_.size()));
    bank_.tokens += static_cast<int64_t>(document.size());
    if (starts_.back() >= kPackTokens) flush();
  }

  EncodedBank finish() {
    flush();
    for (const auto& layer : parts_) {
      LayerMemory all = layer.front();
      if (all.k.defined()) {
        std::vector<Tensor> k, v, router_k;
        for (const LayerMemory& m : layer) k.push_back(m.k), v.push_back(m.v), router_k.push_back(m.router_k);
        all.k = torch::cat(k), all.v = torch::cat(v), all.router_k = torch::cat(router_k);
      }
      bank_.memory.push_back(all);
    }
    return std::move(bank_);
  }

 private:
  void flush() {
    if (starts_.empty()) return;
    const Chunks chunks = Chunks::from(starts_, network_.config().memory.chunk_tokens, device_);
    const auto memory = network_.encode(w_, Pack::from(tokens_, starts_, 0, device_), chunks, Recompute::kNone);
    for (size_t i = 0; i < memory.size(); ++i) parts_[i].push_back(memory[i]);
    const int64_t before = bank_.chunk_starts.back();
    const std::vector<int64_t>& more = chunks.documents.starts;
    for (size_t i = 1; i < more.size(); ++i) bank_.chunk_starts.push_back(before + more[i]);
    starts_.clear();
  }

  const Network& network_;
  const NetworkTensors& w_;
  std::vector<int32_t> head_, tokens_;
  torch::Device device_;
  std::vector<int64_t> starts_;
  std::vector<std::vector<LayerMemory>> parts_;  // [layer][pack]
  EncodedBank bank_;
};

/// Mean scores over the routing layers.
DocumentScores route(const Network& network, const NetworkTensors& w, const EncodedBank& bank,
                     const RowOwners& documents, const std::vector<Prompt>& prompts, torch::Device device) {
  std::vector<int32_t> tokens;
  std::vector<int64_t> starts{0}, rows, row_starts{0};
  for (const Prompt& p : prompts) {
    for (size_t i = 0; i < p.tokens.size(); ++i) {
      if (p.routed[i] != 0) rows.push_back(static_cast<int64_t>(tokens.size() + i));
    }
    tokens.insert(tokens.end(), p.tokens.begin(), p.tokens.end());
    starts.push_back(static_cast<int64_t>(tokens.size()));
    row_starts.push_back(static_cast<int64_t>(rows.size()));
  }
  const ModelConfig& c = network.config();
  Samples samples;
  samples.pack = Pack::from(tokens, starts, bank.memory.front().head_k.size(0) + c.memory.top_k_documents, device);
  samples.routed_rows = torch::tensor(at::ArrayRef<int64_t>(rows), torch::kLong).to(device);
  samples.routed = RowOwners::from(row_starts, device);
  samples.attends = torch::ones({static_cast<int64_t>(prompts.size()), 1}, torch::kBool).to(device);
  Network::QueryOptions options;
  options.top_k = c.memory.top_k_documents;
  const QueryResult out = network.query(w, bank.memory, documents, samples, options);
  return {mean_score(out.scores, w.layer_weights), mean_score(out.late, w.layer_weights)};
}

struct Sums {
  double at_1 = 0, at_5 = 0, at_16 = 0, at_100 = 0, id_1 = 0, id_3 = 0;
};

void add_found(const Tensor& ranked, const std::set<int64_t>& gold, Sums& sums) {
  const int64_t* best = ranked.data_ptr<int64_t>();
  int64_t found = 0;
  const auto share = [&] { return static_cast<double>(found) / static_cast<double>(gold.size()); };
  for (int64_t i = 0; i < 100; ++i) {
    if (i < ranked.size(0) && gold.contains(best[i])) ++found;
    if (i == 0) sums.at_1 += share();
    if (i == 4) sums.at_5 += share();
    if (i == 15) sums.at_16 += share();
  }
  sums.at_100 += share();
}

void add_cited(const Tensor& ranked, const std::set<int64_t>& gold, Sums& sums) {
  const int64_t* best = ranked.data_ptr<int64_t>();
  const auto found = [&](int64_t first) {
    const auto is_gold = [&](int64_t d) { return gold.contains(d); };
    return std::any_of(best, best + std::min(first, ranked.size(0)), is_gold) ? 1 : 0;
  };
  sums.id_1 += found(1);
  sums.id_3 += found(3);
}

}  // namespace

BankQuestions choose_bank(const Dataset& dataset, const std::vector<int32_t>& candidates, int64_t max_questions,
                          int64_t max_documents) {
  BankQuestions bank;
  bank.dataset = &dataset;
  std::set<int32_t> documents;
  for (const int32_t q : candidates) {
    if (static_cast<int64_t>(bank.questions.size()) == max_questions) break;
    const std::vector<int32_t>& gold = dataset.questions[static_cast<size_t>(q)].gold;
    if (gold.empty()) continue;
    documents.insert(gold.begin(), gold.end());
    bank.questions.push_back(q);
  }
  const auto all = static_cast<int64_t>(dataset.document_ids.size());
  const int64_t wanted = max_documents == 0 ? all : std::min(all, max_documents);
  for (int64_t d = 0; d < all && static_cast<int64_t>(documents.size()) < wanted; ++d) {
    documents.insert(static_cast<int32_t>(d));
  }
  bank.documents.assign(documents.begin(), documents.end());
  return bank;
}

BankRecall measure_recall(const Network& network, const NetworkTensors& w, const PromptTemplate& prompts,
                          const BankQuestions& bank, const RecallOptions& options) {
  const torch::Device device = options.device;
  torch::NoGradGuard no_gradients;
  const auto start = std::chrono::steady_clock::now();
  const Dataset& data = *bank.dataset;
  BankEncoder encoder(network, w, prompts.head().tokens, device);
  std::vector<int64_t> place(data.document_ids.size(), -1);
  for (size_t i = 0; i < bank.documents.size(); ++i) {
    place[static_cast<size_t>(bank.documents[i])] = static_cast<int64_t>(i);
    encoder.add(prompts.document(static_cast<int64_t>(i) + 1, data.documents[bank.documents[i]]).tokens);
  }
  const EncodedBank encoded = encoder.finish();
  const RowOwners documents = RowOwners::from(encoded.chunk_starts, device);
  const auto at_once = static_cast<size_t>(questions_at_once(encoded.chunk_starts.back()));
  Sums sums;
  for (size_t first = 0; first < bank.questions.size(); first += at_once) {
    const size_t end = std::min(first + at_once, bank.questions.size());
    std::vector<Prompt> asked;
    for (size_t i = first; i < end; ++i) {
      asked.push_back(prompts.query(data.questions[static_cast<size_t>(bank.questions[i])].text));
    }
    const DocumentScores scores = route(network, w, encoded, documents, asked, device);
    const auto best = [&](const Tensor& t, int64_t k) {
      return std::get<1>(t.topk(std::min<int64_t>(k, documents.size()), 1)).cpu();
    };
    const Tensor ranked = best(scores.best, 100);
    const Tensor sum = scores.best / options.mean_tau + scores.late / options.late_tau;
    const Tensor cited = best(best_again(scores.best, sum, network.config().memory.top_k_documents), 3);
    for (size_t i = first; i < end; ++i) {
      std::set<int64_t> gold;
      for (const int32_t d : data.questions[static_cast<size_t>(bank.questions[i])].gold) {
        gold.insert(place[static_cast<size_t>(d)]);
      }
      add_found(ranked[static_cast<int64_t>(i - first)], gold, sums);
      add_cited(cited[static_cast<int64_t>(i - first)], gold, sums);
    }
  }
  BankRecall r;
  r.set = data.folder;
  r.documents = documents.size();
  r.questions = static_cast<int64_t>(bank.questions.size());
  r.tokens = encoded.tokens;
  const double n = std::max<double>(1, static_cast<double>(r.questions));
  r.at_1 = sums.at_1 / n, r.at_5 = sums.at_5 / n, r.at_16 = sums.at_16 / n, r.at_100 = sums.at_100 / n;
  r.id_1 = sums.id_1 / n, r.id_3 = sums.id_3 / n;
  r.seconds = std::chrono::duration<double>(std::chrono::steady_clock::now() - start).count();
  return r;
}

}  // namespace msa::train
