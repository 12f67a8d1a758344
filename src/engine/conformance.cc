#include "engine/conformance.h"

#include <algorithm>
#include <cmath>
#include <fstream>
#include <nlohmann/json.hpp>
#include <optional>

#include "bank/bank.h"
#include "core/copy.h"
#include "engine/bank_memory.h"
#include "engine/encoder.h"
#include "engine/session.h"
#include "io/safetensors.h"

namespace msa {
namespace {

using Json = nlohmann::json;
using Tokens = std::vector<int32_t>;

struct Case {
  Tokens head, question, tail, generated;
  std::vector<Tokens> documents;
  std::optional<RouterSimilarity> similarity;  // else the one of config.json
};

RouterSimilarity similarity(const std::string& name, const std::string& file) {
  if (name == "cosine") return RouterSimilarity::kCosine;
  if (name == "scaled dot product") return RouterSimilarity::kScaledDot;
  throw Error("unknown similarity '" + name + "'", file, "use 'cosine' or 'scaled dot product'");
}

Case read_case(const std::string& file) {
  std::ifstream in(file);
  if (!in) throw Error("cannot be read", file, "give the directory of a golden case");
  try {
    const Json j = Json::parse(in);
    if (!j.contains("generated")) {
      throw Error("this is a training case", file, "msa-train conformance checks those; give an inference case");
    }
    return {
        j.at("template_head").get<Tokens>(),
        j.at("question").get<Tokens>(),
        j.at("tail").get<Tokens>(),
        j.at("generated").get<Tokens>(),
        j.at("documents").get<std::vector<Tokens>>(),
        j.contains("similarity") ? std::optional(similarity(j["similarity"].get<std::string>(), file)) : std::nullopt};
  } catch (const Json::exception& e) {
    throw Error(std::string("malformed case: ") + e.what(), file, "see the layout in docs/testing.md");
  }
}

/// Compares values in the engine's order with the recorded tensor and files the deviation under its name.
class Checker {
 public:
  Checker(const SafetensorsFile& expected, double tolerance, ConformanceReport& report)
      : expected_(expected), tolerance_(tolerance), report_(report) {}

  void compare(const std::string& name, const std::vector<float>& got) {
    const Tensor want = expected_.get(name);
    if (want.dtype != DType::kF32 || want.elements() != static_cast<int64_t>(got.size())) {
      throw Error("expected F32 with " + std::to_string(got.size()) + " elements, found " + want.describe(),
                  "expected.safetensors, tensor " + name, "record the case again");
    }
    TensorDeviation d;
    double difference = 0, norm = 0, largest = 0;
    const float* w = want.as<float>();
    for (size_t i = 0; i < got.size(); ++i) largest = std::max(largest, std::abs(static_cast<double>(w[i])));
    bool finite = true;
    for (size_t i = 0; i < got.size(); ++i) {
      const double e = std::abs(static_cast<double>(got[i]) - w[i]);
      finite = finite && std::isfinite(e);
      d.max_abs = std::max(d.max_abs, e);
      d.max_rel = std::max(d.max_rel, e / std::max({std::abs(static_cast<double>(w[i])), 1e-3 * largest, 1e-30}));
      difference += e * e;
      norm += static_cast<double>(w[i]) * w[i];
    }
    d.rel_norm = std::sqrt(difference / std::max(norm, 1e-60));
    d.ok = finite && d.rel_norm <= tolerance_;
    file(name, d);
  }

  /// `scores` are the engine's; documents that were swapped must have scores closer than `margin`.
  void compare_selection(const std::string& name, std::vector<int64_t> got, std::span<const float> scores,
                         double margin) {
    std::vector<int64_t> wanted = documents(name);
    std::sort(got.begin(), got.end());
    std::sort(wanted.begin(), wanted.end());
    std::vector<int64_t> missing, surplus;
    std::set_difference(wanted.begin(), wanted.end(), got.begin(), got.end(), std::back_inserter(missing));
    std::set_difference(got.begin(), got.end(), wanted.begin(), wanted.end(), std::back_inserter(surplus));
    TensorDeviation d;
    d.ok = missing.size() == surplus.size();
    for (size_t i = 0; i < std::min(missing.size(), surplus.size()); ++i) {
      const double gap = std::abs(scores[static_cast<size_t>(missing[i])] - scores[static_cast<size_t>(surplus[i])]);
      d.max_abs = std::max(d.max_abs, gap);
      d.ok = d.ok && gap < margin;
    }
    file(name, d);
  }

  std::vector<int64_t> documents(const std::string& name) const {
    const Tensor t = expected_.get(name);
    if (t.dtype != DType::kI64) throw Error("expected I64, found " + t.describe(), "expected.safetensors, " + name);
    return {t.as<int64_t>(), t.as<int64_t>() + t.elements()};
  }

 private:
  void file(const std::string& name, const TensorDeviation& d) {
    report_.tensors[name] = d;
    report_.ok = report_.ok && d.ok;
  }

  const SafetensorsFile& expected_;
  double tolerance_;
  ConformanceReport& report_;
};

std::vector<float> to_vector(const Tensor& t) {
  std::vector<float> out;
  for (int64_t i = 0; i < t.rows(); ++i) out.insert(out.end(), t.row<float>(i), t.row<float>(i) + t.row_elements());
  return out;
}

/// Rows [first, end) of [chunks, G·d] in the order of the recorded tensors, [G, chunks, d].
std::vector<float> heads_first(const Tensor& rows, int64_t first, int64_t end, const ModelConfig& c) {
  std::vector<float> out;
  for (int g = 0; g < c.n_kv_heads; ++g) {
    for (int64_t row = first; row < end; ++row) {
      const float* head = rows.row<float>(row) + g * c.head_dim;
      out.insert(out.end(), head, head + c.head_dim);
    }
  }
  return out;
}

/// Stage 1: template head and documents in one pack, every layer run.
void check_encoding(Context& context, const Transformer& model, const Case& c, Checker& checker) {
  Tokens tokens = c.head, positions;
  std::vector<int64_t> starts{0, static_cast<int64_t>(c.head.size())};
  for (const Tokens& d : c.documents) {
    tokens.insert(tokens.end(), d.begin(), d.end());
    starts.push_back(static_cast<int64_t>(tokens.size()));
  }
  for (size_t s = 0; s + 1 < starts.size(); ++s) {
    for (int64_t i = starts[s]; i < starts[s + 1]; ++i) positions.push_back(static_cast<int32_t>(i - starts[s]));
  }
  const ModelConfig& config = model.config();
  EncodeMemory encode_memory;
  EncodeStage stage(config, starts, encode_memory, /*keep_last_layer=*/true);
  Workspace workspace;
  const Tensor x = model.forward(context, workspace, tokens, positions, stage);
  stage.finish(context, DType::kF32);
  stage.download(context);
  Buffer memory, host;
  const Tensor normed = memory.tensor(DType::kF32, {x.rows(), config.hidden}, context.device);
  model.final_norm(context, x, normed);
  checker.compare("stage1.last_hidden", to_vector(to_host(context, normed, host)));
  const int64_t P = config.memory.chunk_tokens;
  const int64_t head_chunks = (static_cast<int64_t>(c.head.size()) + P - 1) / P;
  for (size_t i = 0; i < config.memory.routing_layers.size(); ++i) {
    const EncodeStage::Pooled pooled = stage.pooled(static_cast<int>(i));
    const std::string layer = "stage1.layer" + std::to_string(config.memory.routing_layers[i]) + ".";
    checker.compare(layer + "k", heads_first(pooled.k, head_chunks, stage.n_chunks(), config));
    checker.compare(layer + "v", heads_first(pooled.v, head_chunks, stage.n_chunks(), config));
    checker.compare(layer + "rk", heads_first(pooled.router_k, head_chunks, stage.n_chunks(), config));
  }
}

std::unique_ptr<Bank> build_bank(Context& context, const Transformer& model, const Case& c, DType dtype) {
  auto bank = Bank::in_memory(bank_shape(model, dtype));
  const auto encoded = Encoder(model, dtype).encode(context, c.documents);
  const auto ids = bank->reserve_ids(static_cast<int64_t>(c.documents.size()));
  const std::vector<DocumentInput> inputs(c.documents.size());
  MSA_CHECK(bank->add(ids, inputs, encoded).committed());
  return bank;
}

/// Attends to the recorded documents. Where rounding has two of nearly the same score change places, that is no fault
/// of the engine, and what comes behind would otherwise be compared with answers from other documents.
class RecordedSelection : public BankMemory {
 public:
  RecordedSelection(const ModelConfig& config, std::shared_ptr<const Snapshot> snapshot,
                    std::shared_ptr<const DeviceKeys> keys, const Checker& checker)
      : BankMemory(config, snapshot, {config.memory.top_k_documents}, std::move(keys)),
        layers_(config.memory.routing_layers),
        segment_(*snapshot->segments.front()),
        checker_(checker),
        own_(layers_.size()) {}

  /// The documents that the engine chose by itself.
  const std::vector<int64_t>& own(size_t routing_index) const { return own_[routing_index]; }

 protected:
  void choose(int routing_index, std::vector<ScoredDocument>& selection) override {
    std::vector<int64_t>& own = own_[static_cast<size_t>(routing_index)];
    own.clear();
    for (const ScoredDocument& d : selection) own.push_back(d.index);
    const std::vector<int64_t> recorded = checker_.documents(
        "stage2.layer" + std::to_string(layers_[static_cast<size_t>(routing_index)]) + ".selected_docs");
    if (std::is_permutation(own.begin(), own.end(), recorded.begin(), recorded.end())) return;
    selection.clear();
    for (const int64_t d : recorded) {
      if (d < 0 || d >= segment_.n_documents())
        throw Error("names document " + std::to_string(d) + ", which the case does not have", "expected.safetensors");
      selection.push_back({segment_.id(d), 0, 0, d});
    }
  }

 private:
  const std::vector<int>& layers_;
  const Segment& segment_;
  const Checker& checker_;
  std::vector<std::vector<int64_t>> own_;  // per routing layer
};

/// Stages 2 and 3: question and tail at once, then the recorded continuation token by token.
void check_answering(Context& context, const Transformer& model, const Case& c, Precision precision, Checker& checker) {
  const ModelConfig& config = model.config();
  const DType dtype = precision == Precision::kF32 ? DType::kF32 : DType::kBF16;
  const auto bank = build_bank(context, model, c, dtype);
  const KvCache head = run_head(context, model, c.head);
  std::shared_ptr<DeviceKeys> keys;
  RecordedSelection memory(config, bank->snapshot(), device_keys(context, bank->snapshot(), keys), checker);
  Session session(context, model, head, &memory, head.length() + config.memory.top_k_documents);

  Tokens prompt = c.question;
  prompt.insert(prompt.end(), c.tail.begin(), c.tail.end());
  std::vector<uint8_t> routed(prompt.size(), 0);
  std::fill_n(routed.begin(), c.question.size(), uint8_t{1});
  checker.compare("stage2.logits", to_vector(session.feed_all(context, prompt, routed)));
  const double margin = precision == Precision::kF32 ? 0.0 : kConformanceBF16;
  for (size_t i = 0; i < config.memory.routing_layers.size(); ++i) {
    const std::string layer = "stage2.layer" + std::to_string(config.memory.routing_layers[i]) + ".";
    const std::span<const float> scores = memory.scores(static_cast<int>(i));
    checker.compare(layer + "doc_scores", {scores.begin(), scores.end()});
    checker.compare_selection(layer + "selected_docs", memory.own(i), scores, margin);
  }
  std::vector<float> logits;
  for (size_t i = 0; i + 1 < c.generated.size(); ++i) {
    const std::span<const float> row = session.feed(context, {&c.generated[i], 1});
    logits.insert(logits.end(), row.begin(), row.end());
  }
  checker.compare("stage3.logits", logits);
}

}  // namespace

ConformanceReport run_conformance(Context& context, const std::string& directory, Precision precision) {
  const Case c = read_case(directory + "/case.json");
  const SafetensorsFile expected = SafetensorsFile::open(directory + "/expected.safetensors");
  ModelWeights weights = load_weights(directory);
  // The case says how its scores were made; config.json names the loss of the training.
  if (c.similarity) weights.config.memory.similarity = *c.similarity;
  const Transformer model(context, std::move(weights), transformer_options(precision, context.device));
  ConformanceReport report;
  Checker checker(expected, precision == Precision::kF32 ? kConformanceF32 : kConformanceBF16, report);
  check_encoding(context, model, c, checker);
  check_answering(context, model, c, precision, checker);
  return report;
}

}  // namespace msa
