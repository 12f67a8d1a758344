// The engine against recorded outputs of the public reference code.
#include "engine/conformance.h"

#include <gtest/gtest.h>

#include "core/cpu.h"

namespace msa {
namespace {

class Conformance : public ::testing::TestWithParam<const char*> {
 protected:
  std::string directory() const { return std::string(MSA_SOURCE_DIR "/tests/data/conformance/") + GetParam(); }

  void expect_ok(const ConformanceReport& report) {
    EXPECT_TRUE(report.ok);
    EXPECT_GT(report.tensors.size(), 15u);
    for (const auto& [name, d] : report.tensors) EXPECT_TRUE(d.ok) << name << " " << d.rel_norm;
  }
};

TEST_P(Conformance, Float32) {
  for (const int threads : {1, 2}) {
    Context context(threads);
    expect_ok(run_conformance(context, directory(), Precision::kF32));
  }
}

TEST_P(Conformance, BFloat16) {
  if (!cpu_features().avx512) GTEST_SKIP() << "bf16 products need AVX512 on this processor";
  Context context(2);
  expect_ok(run_conformance(context, directory(), Precision::kBF16));
}

INSTANTIATE_TEST_SUITE_P(Cases, Conformance, ::testing::Values("cosine-p8", "llama-p8"));

}  // namespace
}  // namespace msa
