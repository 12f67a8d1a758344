#include "core/cpu.h"

#include <sched.h>

#include <algorithm>
#include <fstream>

namespace msa {
namespace {

CpuFeatures detect() {
  CpuFeatures f;
#if defined(__x86_64__)
  __builtin_cpu_init();
  f.avx2 = __builtin_cpu_supports("avx2") && __builtin_cpu_supports("fma");
  f.avx512 = __builtin_cpu_supports("avx512f") && __builtin_cpu_supports("avx512bw") &&
             __builtin_cpu_supports("avx512dq") && __builtin_cpu_supports("avx512vl");
  f.avx512_vnni = f.avx512 && __builtin_cpu_supports("avx512vnni");
  f.avx512_bf16 = f.avx512 && __builtin_cpu_supports("avx512bf16");
#if !defined(__clang__)  // clang 14, which builds the fuzz targets, does not know the name
  f.amx_bf16 = f.avx512 && __builtin_cpu_supports("amx-bf16");
#endif
#endif
  return f;
}

}  // namespace

const CpuFeatures& cpu_features() {
  static const CpuFeatures features = detect();
  return features;
}

std::string cpu_name() {
  std::ifstream info("/proc/cpuinfo");
  for (std::string line; std::getline(info, line);) {
    if (line.rfind("model name", 0) != 0) continue;
    const size_t colon = line.find(": ");
    if (colon != std::string::npos) return line.substr(colon + 2);
  }
  return "unknown CPU";
}

std::string cpu_summary() {
  const CpuFeatures& f = cpu_features();
  std::string text = cpu_name() + ", " + std::to_string(available_cpus()) + " threads:";
  if (f.avx2) text += " avx2";
  if (f.avx512) text += " avx512";
  if (f.avx512_vnni) text += " vnni";
  if (f.avx512_bf16) text += " avx512-bf16";
  if (f.amx_bf16) text += " amx-bf16";
  return text;
}

int available_cpus() {
  cpu_set_t set;
  CPU_ZERO(&set);
  if (sched_getaffinity(0, sizeof(set), &set) != 0) return 1;
  return std::max(1, CPU_COUNT(&set));
}

}  // namespace msa
