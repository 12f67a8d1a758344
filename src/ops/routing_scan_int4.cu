#include "ops/routing_scan_kernel.cuh"

namespace msa {

ScanKernel int4_scan_kernel(int tiles) { return scan_kernel_of<Int4Scan>(tiles); }

}  // namespace msa
