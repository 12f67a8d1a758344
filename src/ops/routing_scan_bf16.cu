#include "ops/routing_scan_kernel.cuh"

namespace msa {

ScanKernel bf16_scan_kernel(int tiles) { return scan_kernel_of<Bf16Scan>(tiles); }

}  // namespace msa
