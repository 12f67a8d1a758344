#include "train/conformance.h"

#include <cmath>

#include "io/json_file.h"
#include "io/safetensors.h"
#include "train/backbone.h"
#include "train/step.h"

namespace msa::train {
namespace {

using Json = nlohmann::json;
using Tokens = std::vector<int32_t>;

struct Case {
  Batch batch;
  StepOptions options;
};

void append(std::vector<int32_t>& to, const Tokens& tokens) { to.insert(to.end(), tokens.begin(), tokens.end()); }

/// The case as a batch of one sample over its documents.
Case read_case(const std::string& directory) {
  const std::string where = directory + "/case.json";
  const Json j = read_json_file(where);
  const Json settings = read_json_file(directory + "/config.json").at("msa_config");
  Case c;
  try {
    if (!j.contains("labels")) throw Error("this is an inference case", where, "msa conformance checks those");
    Batch& b = c.batch;
    b.starts = {0};
    append(b.tokens, j.at("template_head").get<Tokens>());
    b.starts.push_back(static_cast<int64_t>(b.tokens.size()));
    for (const Json& document : j.at("documents")) {
      append(b.tokens, document.get<Tokens>());
      b.starts.push_back(static_cast<int64_t>(b.tokens.size()));
    }
    b.n_trained = b.documents();
    const auto question = j.at("question").get<Tokens>();
    append(b.sample_tokens, question);
    append(b.sample_tokens, j.at("tail").get<Tokens>());
    append(b.sample_tokens, j.at("answer").get<Tokens>());
    const size_t n = b.sample_tokens.size();
    b.sample_starts = {0, static_cast<int64_t>(n)};
    b.routed.assign(n, 0);
    std::fill_n(b.routed.begin(), question.size(), uint8_t{1});
    const auto labels = j.at("labels").get<Tokens>();  // of everything, the sample last
    if (labels.size() < n) throw Error("too few labels", where);
    for (size_t i = 0; i < n; ++i) b.predicted.push_back(labels[labels.size() - n + i] != -100 ? 1 : 0);
    b.kinds = {SampleKind::kAnswer};
    b.positives = j.at("positives").get<Tokens>();
    b.positive_starts = {0, static_cast<int64_t>(b.positives.size())};
    b.top_k_documents = settings.at("top_k_docs").get<int>();
    c.options.lm_weight = settings.at("lmloss_weigth").get<double>();
    c.options.aux_weight = settings.at("auxloss_weight").get<double>();
    c.options.tau = settings.at("infonce_loss_temp").get<double>();
    const auto method = settings.at("aux_loss_method").get<std::string>();
    c.options.routing_loss = method == "INFONCE_DECOUPLE" ? RoutingLoss::kEquation5 : RoutingLoss::kInfoNce;
  } catch (const Json::exception& e) {
    throw Error(std::string("malformed case: ") + e.what(), where);
  }
  return c;
}

TensorCheck check(const std::string& name, const Tensor& got, const msa::Tensor& want, double tolerance) {
  if (want.dtype != DType::kF32 || want.elements() != got.numel()) {
    throw Error("expected F32 with " + std::to_string(got.numel()) + " elements, found " + want.describe(),
                "expected.safetensors, tensor " + name);
  }
  const Tensor flat = got.detach().to(torch::kCPU, torch::kDouble).flatten();
  const Tensor expected = torch::from_blob(want.data, {want.elements()}, torch::kFloat).to(torch::kDouble);
  const double error = (flat - expected).norm().item<double>() / (expected.norm().item<double>() + 1e-30);
  return {name, error, tolerance, std::isfinite(error) && error <= tolerance};
}

}  // namespace

std::vector<TensorCheck> run_conformance(const std::string& directory, torch::Device device) {
  const Case c = read_case(directory);
  const SafetensorsFile expected = SafetensorsFile::open(directory + "/expected.safetensors");
  TrainedParts parts;
  parts.all_weights = true;
  Backbone backbone(directory, "", parts, torch::kFloat, device, /*seed=*/0);
  const Network network(backbone.config(), torch::kFloat);
  const StepInput input = StepInput::from(c.batch, backbone.config(), device);
  const StepResult result = run_step(network, backbone.effective(), input, c.options);
  result.loss.backward();

  std::vector<TensorCheck> checks;
  checks.push_back(check("lm_loss", result.lm_loss, expected.get("lm_loss"), kLossTolerance));
  checks.push_back(check("aux_loss", result.aux_loss, expected.get("aux_loss"), kLossTolerance));
  checks.push_back(check("loss", result.loss, expected.get("loss"), kLossTolerance));
  for (const auto& [name, want] : expected.tensors()) {
    if (!name.starts_with("grad.")) continue;
    checks.push_back(check(name, backbone.parameters().get(name.substr(5)).grad(), want, kGradientTolerance));
  }
  for (const auto& [name, leaf] : backbone.parameters().leaves()) {
    if (expected.find("grad." + name) == nullptr) throw Error("no gradient recorded", directory + ", " + name);
  }
  return checks;
}

}  // namespace msa::train
