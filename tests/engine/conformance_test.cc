// The engine against recorded outputs of the public reference code.
#include "engine/conformance.h"

#include <gtest/gtest.h>

#include "../device_testing.h"
#include "../test_data.h"
#include "core/cpu.h"

namespace msa {
namespace {

class Conformance : public DeviceTest {
 protected:
  void run(Context& context, Precision precision) {
    for (const char* name : {"cosine-p8", "llama-p8"}) {
      SCOPED_TRACE(name);
      expect_ok(run_conformance(context, test_data() + "/conformance/" + name, precision));
    }
  }

  static void expect_ok(const ConformanceReport& report) {
    EXPECT_TRUE(report.ok);
    EXPECT_GT(report.tensors.size(), 15u);
    for (const auto& [name, d] : report.tensors) EXPECT_TRUE(d.ok) << name << " " << d.rel_norm << " " << d.max_abs;
  }
};

TEST_P(Conformance, Float32) {
  for (const int threads : {1, 2}) {
    Context context(threads, device());
    run(context, Precision::kF32);
  }
}

TEST_P(Conformance, BFloat16) {
  if (!is_cuda() && !cpu_features().avx512) GTEST_SKIP() << "bf16 products need AVX512 on this processor";
  Context context(2, device());
  run(context, Precision::kBF16);
}

MSA_TEST_ON_DEVICES(Conformance);

}  // namespace
}  // namespace msa
