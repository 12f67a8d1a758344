// Through the driver's functions, found at run time: the program links against no driver.
#include <cuda.h>

#include <algorithm>
#include <string>
#include <vector>

#include "core/cuda_state.h"
#include "core/error.h"
#include "core/growing_memory_impl.h"

namespace msa {
namespace {

constexpr size_t kSmallestPiece = size_t{2} << 20;

template <class Function>
Function driver_function(const char* name) {
  void* found = nullptr;
  cudaDriverEntryPointQueryResult status = cudaDriverEntryPointSymbolNotFound;
  cuda_check(cudaGetDriverEntryPointByVersion(name, &found, 12000, cudaEnableDefault, &status), name);
  if (status != cudaDriverEntryPointSuccess || found == nullptr) {
    throw Error(std::string("the driver has no ") + name, "CUDA", "install a driver for CUDA 13");
  }
  return reinterpret_cast<Function>(found);
}

struct Driver {
  decltype(&cuMemGetAllocationGranularity) granularity =
      driver_function<decltype(&cuMemGetAllocationGranularity)>("cuMemGetAllocationGranularity");
  decltype(&cuMemAddressReserve) reserve = driver_function<decltype(&cuMemAddressReserve)>("cuMemAddressReserve");
  decltype(&cuMemAddressFree) free_addresses = driver_function<decltype(&cuMemAddressFree)>("cuMemAddressFree");
  decltype(&cuMemCreate) create = driver_function<decltype(&cuMemCreate)>("cuMemCreate");
  decltype(&cuMemRelease) release = driver_function<decltype(&cuMemRelease)>("cuMemRelease");
  decltype(&cuMemMap) map = driver_function<decltype(&cuMemMap)>("cuMemMap");
  decltype(&cuMemUnmap) unmap = driver_function<decltype(&cuMemUnmap)>("cuMemUnmap");
  decltype(&cuMemSetAccess) set_access = driver_function<decltype(&cuMemSetAccess)>("cuMemSetAccess");
};

const Driver& driver() {
  static const Driver functions;
  return functions;
}

void check(CUresult status, const char* what) {
  if (status == CUDA_SUCCESS) return;
  throw Error("CUDA driver error " + std::to_string(status), what,
              "see that the GPU offers virtual memory management (nvidia-smi -q names its mode)");
}

struct DeviceMemory : GrowingMemory::Impl {
  DeviceMemory(int device, size_t bytes) : index(use_device(device)) {
    cuda_check(cudaFree(nullptr), "cudaFree");  // the driver's calls need the runtime's context
    properties.type = CU_MEM_ALLOCATION_TYPE_PINNED;
    properties.location.type = CU_MEM_LOCATION_TYPE_DEVICE;
    properties.location.id = index;
    check(driver().granularity(&granule, &properties, CU_MEM_ALLOC_GRANULARITY_RECOMMENDED), "granularity of memory");
    granule = std::max(granule, kSmallestPiece);
    most = (std::max<size_t>(bytes, 1) + granule - 1) / granule * granule;
    CUdeviceptr at = 0;
    check(driver().reserve(&at, most, 0, 0, 0), "reserving addresses");
    data = reinterpret_cast<char*>(at);
  }

  ~DeviceMemory() override {
    if (use_device_quietly()) cudaDeviceSynchronize();  // whoever still reads
    if (held > 0) driver().unmap(address(0), held);
    for (const CUmemGenericAllocationHandle piece : pieces) driver().release(piece);
    driver().free_addresses(address(0), most);
  }

  void add(size_t more) override {
    use_device(index);
    CUmemGenericAllocationHandle piece = 0;
    CUresult status = driver().create(&piece, more, &properties, 0);
    if (status == CUDA_ERROR_OUT_OF_MEMORY) {
      cuda_give_back(index);
      status = driver().create(&piece, more, &properties, 0);
    }
    if (status == CUDA_ERROR_OUT_OF_MEMORY) cuda_out_of_memory(index, more);
    check(status, "cuMemCreate");
    status = driver().map(address(held), more, 0, piece, 0);
    if (status != CUDA_SUCCESS) {
      driver().release(piece);
      check(status, "cuMemMap");
    }
    CUmemAccessDesc access{};
    access.location = properties.location;
    access.flags = CU_MEM_ACCESS_FLAGS_PROT_READWRITE;
    status = driver().set_access(address(held), more, &access, 1);
    if (status != CUDA_SUCCESS) {
      driver().unmap(address(held), more);
      driver().release(piece);
      check(status, "cuMemSetAccess");
    }
    pieces.push_back(piece);
  }

  CUdeviceptr address(size_t offset) const { return reinterpret_cast<CUdeviceptr>(data) + offset; }
  bool use_device_quietly() const { return cudaSetDevice(index) == cudaSuccess; }

  int index;
  CUmemAllocationProp properties{};
  std::vector<CUmemGenericAllocationHandle> pieces;
};

}  // namespace

std::unique_ptr<GrowingMemory::Impl> reserve_cuda_memory(int index, size_t most) {
  return std::make_unique<DeviceMemory>(index, most);
}

}  // namespace msa
