// Memory that grows where it lies, on the host and on a GPU.
#include "core/growing_memory.h"

#include <gtest/gtest.h>

#include <cstring>
#include <numeric>

#include "../device_testing.h"

namespace msa {
namespace {

TEST(BytesToAdd, WholeGranulesAndAnEighthAtLeast) {
  EXPECT_EQ(bytes_to_add(0, 0, 8, 80), 0u);
  EXPECT_EQ(bytes_to_add(16, 16, 8, 80), 0u);
  EXPECT_EQ(bytes_to_add(16, 3, 8, 80), 0u);
  EXPECT_EQ(bytes_to_add(0, 1, 8, 80), 8u);
  EXPECT_EQ(bytes_to_add(8, 17, 8, 80), 16u);
  EXPECT_EQ(bytes_to_add(800, 801, 8, 8000), 104u);  // an eighth is 100
  EXPECT_EQ(bytes_to_add(800, 801, 8, 840), 40u);    // no more than there is room for
  EXPECT_EQ(bytes_to_add(72, 80, 8, 80), 8u);
}

class GrowingMemoryTest : public DeviceTest {
 protected:
  GrowingMemoryTest() {
    if (!is_cuda()) context_ = std::make_unique<Context>(1);
  }
  Context& context() { return is_cuda() ? cuda_context() : *context_; }
  Tensor ints(const GrowingMemory& memory, int64_t n) {
    return Tensor(memory.data(), DType::kI32, {n}, context().device);
  }

 private:
  std::unique_ptr<Context> context_;
};

TEST_P(GrowingMemoryTest, KeepsAddressAndContent) {
  constexpr int64_t kMost = 40 << 20;  // numbers
  GrowingMemory memory(device(), static_cast<size_t>(kMost) * 4);
  EXPECT_EQ(memory.capacity(), 0u);
  const void* const at = memory.data();
  std::vector<int32_t> expected;
  for (const int64_t n : {int64_t{1}, int64_t{1000}, int64_t{600'000}, int64_t{3'000'000}, kMost}) {
    memory.grow(static_cast<size_t>(n) * 4);
    ASSERT_GE(memory.capacity(), static_cast<size_t>(n) * 4);
    EXPECT_EQ(memory.data(), at);
    const auto before = static_cast<int64_t>(expected.size());
    expected.resize(static_cast<size_t>(n));
    std::iota(expected.begin() + before, expected.end(), static_cast<int32_t>(before));
    copy(context(), Tensor(expected.data() + before, DType::kI32, {n - before}), ints(memory, n).slice_rows(before, n));
    std::vector<int32_t> found(expected.size());
    copy(context(), ints(memory, n), Tensor(found.data(), DType::kI32, {n}));
    ASSERT_EQ(found, expected);
  }
  const GrowingMemory moved = std::move(memory);
  EXPECT_EQ(moved.data(), at);
}

TEST_P(GrowingMemoryTest, AsksForMoreThanThereIs) {
  if (!is_cuda()) GTEST_SKIP() << "the host gives pages when they are touched";
  GrowingMemory memory(device(), size_t{1} << 44);
  memory.grow(1 << 20);
  EXPECT_THROW(memory.grow(size_t{1} << 43), Error);
  const size_t held = memory.capacity();
  memory.grow(held + 1);  // what can be had still can
  EXPECT_GT(memory.capacity(), held);
}

MSA_TEST_ON_DEVICES(GrowingMemoryTest);

}  // namespace
}  // namespace msa
