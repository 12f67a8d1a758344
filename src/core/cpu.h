// What the processor at hand can do, found once at run time.
#pragma once
#include <string>

namespace msa {

struct CpuFeatures {
  bool avx2 = false;
  bool avx512 = false;       // F, BW, DQ, VL
  bool avx512_vnni = false;  // int8 dot products
  bool avx512_bf16 = false;  // bf16 dot products
  bool amx_bf16 = false;
};

const CpuFeatures& cpu_features();
std::string cpu_name();     // "AMD EPYC …", "unknown CPU" where the system does not say
std::string cpu_summary();  // name and the features above, for reports
int available_cpus();       // CPUs this process may run on

}  // namespace msa
