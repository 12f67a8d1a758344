#include "core/growing_memory.h"

#include <sys/mman.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <cstring>
#include <string>

#include "core/device.h"
#include "core/growing_memory_impl.h"

namespace msa {
namespace {

size_t round_up(size_t bytes, size_t granule) { return (bytes + granule - 1) / granule * granule; }

[[noreturn]] void fail(const char* what, size_t bytes) {
  throw Error(std::string(what) + ": " + std::to_string(bytes >> 20) + " MiB: " + std::strerror(errno), "host memory",
              "use a machine with more memory, or raise its limits (ulimit -v)");
}

struct HostMemory : GrowingMemory::Impl {
  explicit HostMemory(size_t bytes) {
    granule = static_cast<size_t>(::sysconf(_SC_PAGESIZE));
    most = round_up(std::max<size_t>(bytes, 1), granule);
    void* const at = ::mmap(nullptr, most, PROT_NONE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
    if (at == MAP_FAILED) fail("addresses cannot be reserved", most);
    data = static_cast<char*>(at);
  }
  ~HostMemory() override { ::munmap(data, most); }
  void add(size_t more) override {
    if (::mprotect(data + held, more, PROT_READ | PROT_WRITE) != 0) fail("out of memory", more);
  }
};

}  // namespace

size_t bytes_to_add(size_t held, size_t wanted, size_t granule, size_t most) {
  MSA_CHECK(wanted <= most && held % granule == 0 && most % granule == 0);
  if (wanted <= held) return 0;
  return std::min(round_up(std::max(wanted - held, held / 8), granule), most - held);
}

GrowingMemory::GrowingMemory(Device device, size_t most) {
  if (!on_cuda(device)) {
    impl_ = std::make_unique<HostMemory>(most);
    return;
  }
  if constexpr (kHasCuda) impl_ = reserve_cuda_memory(device.index, most);
  MSA_CHECK(impl_ != nullptr);
}

GrowingMemory::GrowingMemory(GrowingMemory&&) noexcept = default;
GrowingMemory& GrowingMemory::operator=(GrowingMemory&&) noexcept = default;
GrowingMemory::~GrowingMemory() = default;

void* GrowingMemory::data() const { return impl_->data; }
size_t GrowingMemory::capacity() const { return impl_->held; }

void GrowingMemory::grow(size_t bytes) {
  const size_t more = bytes_to_add(impl_->held, bytes, impl_->granule, impl_->most);
  if (more == 0) return;
  impl_->add(more);
  impl_->held += more;
}

}  // namespace msa
