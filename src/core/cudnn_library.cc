#include "core/cudnn_library.h"

#if MSA_HAS_CUDNN
#include <cudnn.h>
#include <dlfcn.h>
#include <nvrtc.h>

#include <string>

#include "core/error.h"

namespace msa {
namespace {

constexpr const char* kLibraries[] = {"libcudnn.so.9", "/usr/local/cuda/lib64/libcudnn.so.9"};

struct Library {
  Library() {
    for (const char* name : kLibraries) {
      handle = dlopen(name, RTLD_NOW | RTLD_LOCAL);
      if (handle != nullptr) return;
      why = dlerror();
    }
  }
  void* handle = nullptr;
  std::string why;
};

const Library& library() {
  static const Library opened;
  return opened;
}

template <class Function>
Function* find(const char* name) {
  MSA_CHECK(library().handle != nullptr);
  void* const found = dlsym(library().handle, name);
  if (found == nullptr) throw Error(std::string("has no function ") + name, "libcudnn.so.9", "install cuDNN 9");
  return reinterpret_cast<Function*>(found);
}

}  // namespace

const char* open_cudnn_library() { return library().handle != nullptr ? nullptr : library().why.c_str(); }

}  // namespace msa

// Hidden: another library of the process that is linked with cuDNN keeps its own.
#pragma GCC visibility push(hidden)
#define MSA_FORWARD(result, name, parameters, arguments)     \
  result name parameters {                                   \
    static auto* const f = msa::find<decltype(name)>(#name); \
    return f arguments;                                      \
  }
extern "C" {
MSA_FORWARD(size_t, cudnnGetVersion, (), ())
MSA_FORWARD(const char*, cudnnGetErrorString, (cudnnStatus_t status), (status))
MSA_FORWARD(void, cudnnGetLastErrorString, (char* message, size_t most), (message, most))
MSA_FORWARD(cudnnStatus_t, cudnnCreate, (cudnnHandle_t * handle), (handle))
MSA_FORWARD(cudnnStatus_t, cudnnDestroy, (cudnnHandle_t handle), (handle))
MSA_FORWARD(cudnnStatus_t, cudnnSetStream, (cudnnHandle_t handle, cudaStream_t stream), (handle, stream))
MSA_FORWARD(cudnnStatus_t, cudnnGetStream, (cudnnHandle_t handle, cudaStream_t* stream), (handle, stream))
MSA_FORWARD(cudnnStatus_t, cudnnBackendCreateDescriptor,
            (cudnnBackendDescriptorType_t type, cudnnBackendDescriptor_t* descriptor), (type, descriptor))
MSA_FORWARD(cudnnStatus_t, cudnnBackendDestroyDescriptor, (cudnnBackendDescriptor_t descriptor), (descriptor))
MSA_FORWARD(cudnnStatus_t, cudnnBackendFinalize, (cudnnBackendDescriptor_t descriptor), (descriptor))
MSA_FORWARD(cudnnStatus_t, cudnnBackendSetAttribute,
            (cudnnBackendDescriptor_t descriptor, cudnnBackendAttributeName_t name, cudnnBackendAttributeType_t type,
             int64_t count, const void* elements),
            (descriptor, name, type, count, elements))
MSA_FORWARD(cudnnStatus_t, cudnnBackendGetAttribute,
            (const cudnnBackendDescriptor_t descriptor, cudnnBackendAttributeName_t name,
             cudnnBackendAttributeType_t type, int64_t most, int64_t* count, void* elements),
            (descriptor, name, type, most, count, elements))
MSA_FORWARD(cudnnStatus_t, cudnnBackendExecute,
            (cudnnHandle_t handle, cudnnBackendDescriptor_t plan, cudnnBackendDescriptor_t pack), (handle, plan, pack))

// The frontend also holds an engine for another operation, which compiles its kernel. Nothing here asks for it.
#define MSA_REFUSE(name, parameters) \
  nvrtcResult name parameters { return NVRTC_ERROR_INTERNAL_ERROR; }
MSA_REFUSE(nvrtcCreateProgram, (nvrtcProgram*, const char*, const char*, int, const char* const*, const char* const*))
MSA_REFUSE(nvrtcDestroyProgram, (nvrtcProgram*))
MSA_REFUSE(nvrtcCompileProgram, (nvrtcProgram, int, const char* const*))
MSA_REFUSE(nvrtcGetProgramLogSize, (nvrtcProgram, size_t*))
MSA_REFUSE(nvrtcGetProgramLog, (nvrtcProgram, char*))
MSA_REFUSE(nvrtcGetCUBINSize, (nvrtcProgram, size_t*))
MSA_REFUSE(nvrtcGetCUBIN, (nvrtcProgram, char*))
#undef MSA_REFUSE
}
#undef MSA_FORWARD
#pragma GCC visibility pop
#endif
