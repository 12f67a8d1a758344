#include "model/convert.h"

#include <gtest/gtest.h>

#include <cmath>

#include "tests/model/model_files.h"

namespace msa {
namespace {

void expect_same_weights(const ModelWeights& a, const ModelWeights& b, double relative, double absolute = 0) {
  const auto compare = [&](const Tensor& x, const Tensor& y, const char* what) {
    ASSERT_EQ(x.empty(), y.empty()) << what;
    if (x.empty()) return;
    const std::vector<float> u = values_of(x), v = values_of(y);
    ASSERT_EQ(u.size(), v.size()) << what;
    for (size_t i = 0; i < u.size(); ++i)
      ASSERT_LE(std::fabs(u[i] - v[i]), relative * std::fabs(u[i]) + absolute) << what;
  };
  compare(a.embedding, b.embedding, "embedding");
  compare(a.lm_head, b.lm_head, "lm_head");
  compare(a.final_norm, b.final_norm, "final_norm");
  ASSERT_EQ(a.layers.size(), b.layers.size());
  for (size_t l = 0; l < a.layers.size(); ++l) {
    const LayerWeights &x = a.layers[l], &y = b.layers[l];
    compare(x.input_norm, y.input_norm, "input_norm");
    compare(x.q, y.q, "q");
    compare(x.k, y.k, "k");
    compare(x.v, y.v, "v");
    compare(x.o, y.o, "o");
    compare(x.q_norm, y.q_norm, "q_norm");
    compare(x.router_q, y.router_q, "router_q");
    compare(x.router_k, y.router_k, "router_k");
    compare(x.post_attention_norm, y.post_attention_norm, "post_attention_norm");
    compare(x.gate, y.gate, "gate");
    compare(x.up, y.up, "up");
    compare(x.down, y.down, "down");
  }
  EXPECT_EQ(config_to_json(a.config), config_to_json(b.config));
}

TEST(Convert, ADirectoryRoundTrips) {
  const TemporaryFolder folder;
  for (const char* name : {"cosine-p8", "llama-p8"}) {
    for (const DType type : {DType::kF32, DType::kBF16, DType::kF16}) {
      SCOPED_TRACE(std::string(name) + " " + traits(type).name);
      const std::string output = folder / (std::string(name) + traits(type).name);
      convert({.source = kGoldens + name, .adapter = "", .output = output, .dtype = type});
      const ModelWeights converted = load_weights(output);
      EXPECT_EQ(converted.layers[0].q.dtype, type);
      EXPECT_EQ(converted.layers[0].input_norm.dtype, DType::kF32);
      const double relative = type == DType::kF32 ? 0 : type == DType::kBF16 ? 0x1p-8 : 0x1p-11;
      const double absolute = type == DType::kF16 ? 0x1p-25 : 0;  // subnormals
      expect_same_weights(load_weights(kGoldens + name), converted, relative, absolute);
    }
  }
}

TEST(Convert, AGgufFileWithAdapterBecomesOneDirectory) {
  const Checkpoint checkpoint("llama-p8");
  const AdapterFiles adapter(checkpoint);
  const TemporaryFolder folder;
  write_file_atomically(folder / "model.gguf", llama_gguf(checkpoint, DType::kQ8_0));
  adapter.write(folder / "adapter");
  write_file_atomically(folder / "adapter/msa_template.json", "{\"head\": []}");
  const ConvertOptions options = {folder / "model.gguf", folder / "adapter", folder / "out", DType::kF32};
  convert(options);
  expect_same_weights(load_weights(WeightSource{options.source, options.adapter}), load_weights(options.output), 0);
  EXPECT_EQ(read_file(folder / "out/msa_template.json"), "{\"head\": []}");
  EXPECT_EQ(read_json_file(folder / "out/generation_config.json")["eos_token_id"], 0);
  const nlohmann::json tokenizer = read_json_file(folder / "out/tokenizer.json");
  EXPECT_EQ(tokenizer["model"]["vocab"]["ab"], 3);
  EXPECT_EQ(tokenizer["model"]["merges"][0], (nlohmann::json{"a", "b"}));
  EXPECT_EQ(tokenizer["added_tokens"].size(), 1u);
  EXPECT_EQ(tokenizer["added_tokens"][0]["content"], "<|im_end|>");
  EXPECT_EQ(tokenizer["pre_tokenizer"]["pretokenizers"][0]["type"], "Digits");
  expect_message([&] { convert(options); }, {folder / "out", "is not empty"});
}

TEST(Convert, RefusesBadOptions) {
  const TemporaryFolder folder;
  expect_message([&] { convert({kGoldens + "llama-p8", "", folder / "out", DType::kQ8_0}); }, {"--dtype", "Q8_0"});
  expect_message([&] { convert({folder / "absent", "", folder / "out", DType::kF32}); }, {"absent"});
  EXPECT_FALSE(std::filesystem::exists(folder / "out"));
}

TEST(Convert, TheDefaultModel) {
  if (!file_exists(kDefaultModel + "/base.gguf")) GTEST_SKIP() << "base.gguf is not there; set-up fetches it";
  const TemporaryFolder folder;
  convert({kDefaultModel, "", folder / "out", DType::kBF16});
  expect_same_weights(load_weights(kDefaultModel), load_weights(folder / "out"), 0x1p-8);
  EXPECT_EQ(read_json_file(folder / "out/tokenizer.json")["model"]["vocab"].size(), 49152u);
  if (const char* keep = std::getenv("MSA_TEST_KEEP")) std::filesystem::copy(folder / "out", keep);
}

}  // namespace
}  // namespace msa
