// The random numbers of fill_uniform, for host and device code.
#pragma once
#include <cstdint>

#if defined(__CUDACC__)
#define MSA_HOST_DEVICE __host__ __device__
#else
#define MSA_HOST_DEVICE
#endif

namespace msa {

/// A number of (-1, 1) for element i: the finaliser of SplitMix64, 24 bits of it.
MSA_HOST_DEVICE inline float uniform_of(uint64_t i, uint32_t seed) {
  uint64_t x = i + (static_cast<uint64_t>(seed) + 1) * 0x9e3779b97f4a7c15u;
  x = (x ^ (x >> 30)) * 0xbf58476d1ce4e5b9u;
  x = (x ^ (x >> 27)) * 0x94d049bb133111ebu;
  x ^= x >> 31;
  return (static_cast<float>(x >> 40) + 0.5f) * 0x1p-23f - 1.0f;
}

}  // namespace msa
