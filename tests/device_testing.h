// Tests with the device as their parameter: every one runs on the CPU, and on a GPU where there is one.
#pragma once
#include <gtest/gtest.h>

#include <cstdint>
#include <cstdlib>
#include <memory>
#include <string>
#include <vector>

#include "core/copy.h"
#include "core/device.h"

namespace msa {

/// MSA_REQUIRE_CUDA=1 makes a missing GPU a failure: for the machine whose GPU is to be tested.
class DeviceTest : public ::testing::TestWithParam<DeviceType> {
 protected:
  void SetUp() override {
    const std::string why = device_problem(device());
    if (why.empty()) return;
    ASSERT_EQ(std::getenv("MSA_REQUIRE_CUDA"), nullptr) << why;
    GTEST_SKIP() << why;
  }
  static Device device() { return {GetParam(), 0}; }
  static bool is_cuda() { return GetParam() == DeviceType::kCuda; }
};

inline std::string device_test_name(const ::testing::TestParamInfo<DeviceType>& test) {
  return test.param == DeviceType::kCuda ? "Cuda" : "Cpu";
}

#define MSA_TEST_ON_DEVICES(suite) \
  INSTANTIATE_TEST_SUITE_P(On, suite, ::testing::Values(DeviceType::kCpu, DeviceType::kCuda), device_test_name)

/// Copies of host tensors on the context's device, strides, gaps and alignment kept. On the CPU the tensors themselves.
class OnDevice {
 public:
  explicit OnDevice(Context& context) : context_(context) {}
  ~OnDevice() {
    for (const Pair& p : results_) copy(context_, bytes_of(p.device), bytes_of(p.host));
  }
  OnDevice(const OnDevice&) = delete;
  OnDevice& operator=(const OnDevice&) = delete;

  Tensor in(const Tensor& host) {
    if (!on_cuda(context_.device)) return host;
    const auto offset = reinterpret_cast<uintptr_t>(host.data) % 64;
    memory_.push_back(std::make_unique<Buffer>(static_cast<size_t>(extent(host)) + 128, context_.device));
    Tensor t = host;
    t.data = static_cast<char*>(memory_.back()->data()) + offset;
    t.device = context_.device;
    copy(context_, bytes_of(host), bytes_of(t));
    return t;
  }

  /// A tensor that the op writes: copied back, gaps included, when this object goes.
  Tensor out(const Tensor& host) {
    const Tensor t = in(host);
    if (on_cuda(context_.device)) results_.push_back({host, t});
    return t;
  }

 private:
  struct Pair {
    Tensor host, device;
  };

  static int64_t extent(const Tensor& t) {
    return t.rows() == 0 ? 0 : (t.rows() - 1) * t.row_bytes + t.dense_row_bytes();
  }
  static Tensor bytes_of(const Tensor& t) { return Tensor(t.data, DType::kI8, {extent(t)}, t.device); }

  Context& context_;
  std::vector<std::unique_ptr<Buffer>> memory_;
  std::vector<Pair> results_;
};

/// One context for all tests of a program: making one costs more than most tests.
inline Context& cuda_context() {
  static Context context(2, {DeviceType::kCuda, 0});
  return context;
}

}  // namespace msa
