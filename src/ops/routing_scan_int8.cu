#include "ops/routing_scan_kernel.cuh"

namespace msa {

ScanKernel int8_scan_kernel(int tiles) { return scan_kernel_of<Int8Scan>(tiles); }

}  // namespace msa
