// Tests with the device as a parameter: the same test on the CPU and, where there is one, on a GPU.
#pragma once
#include <gtest/gtest.h>
#include <torch/cuda.h>
#include <torch/torch.h>

#include <string>

#include "../test_data.h"

namespace msa::train {

class OnDevice : public ::testing::TestWithParam<const char*> {
 protected:
  void SetUp() override {
    device_ = torch::Device(GetParam());
    if (device_.is_cuda() && !torch::cuda::is_available()) GTEST_SKIP() << "libtorch finds no CUDA device";
  }
  torch::Device device_ = torch::kCPU;
};

#define MSA_ON_EVERY_DEVICE(suite) INSTANTIATE_TEST_SUITE_P(Devices, suite, ::testing::Values("cpu", "cuda"))

}  // namespace msa::train
