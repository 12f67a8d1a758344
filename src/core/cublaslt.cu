#include <dlfcn.h>

#include <algorithm>
#include <string>

#include "core/cublaslt.h"
#include "core/cuda_state.h"
#include "core/error.h"

namespace msa {
namespace {

constexpr const char* kLibraries[] = {"libcublasLt.so.13", "/usr/local/cuda/lib64/libcublasLt.so.13"};
constexpr size_t kWorkspaceBytes = size_t{64} << 20;  // NVIDIA advises 32 MiB for Hopper; 64 lets split-K in
constexpr size_t kMostPlans = 4096;

#define MSA_CUBLASLT_FUNCTIONS(DO)         \
  DO(cublasLtCreate)                       \
  DO(cublasLtDestroy)                      \
  DO(cublasLtGetStatusString)              \
  DO(cublasLtMatmul)                       \
  DO(cublasLtMatmulAlgoGetHeuristic)       \
  DO(cublasLtMatmulDescCreate)             \
  DO(cublasLtMatmulDescDestroy)            \
  DO(cublasLtMatmulDescSetAttribute)       \
  DO(cublasLtMatmulPreferenceCreate)       \
  DO(cublasLtMatmulPreferenceDestroy)      \
  DO(cublasLtMatmulPreferenceSetAttribute) \
  DO(cublasLtMatrixLayoutCreate)           \
  DO(cublasLtMatrixLayoutDestroy)

/// The functions of the library, found by name.
struct Functions {
#define MSA_DECLARE(name) decltype(&::name) name = nullptr;
  MSA_CUBLASLT_FUNCTIONS(MSA_DECLARE)
#undef MSA_DECLARE
};

Functions open_library() {
  void* library = nullptr;
  for (const char* name : kLibraries) {
    library = dlopen(name, RTLD_NOW | RTLD_LOCAL);
    if (library != nullptr) break;
  }
  if (library == nullptr) {
    throw Error(
        "cannot be opened", "libcublasLt.so.13",
        "install the CUDA 13 toolkit, or `pip install nvidia-cublas` and set LD_LIBRARY_PATH to its lib folder");
  }
  Functions f;
  const auto find = [&](const char* name) {
    void* const found = dlsym(library, name);
    if (found == nullptr) throw Error(std::string("has no function ") + name, "libcublasLt.so.13", "install CUDA 13");
    return found;
  };
#define MSA_FIND(name) f.name = reinterpret_cast<decltype(f.name)>(find(#name));
  MSA_CUBLASLT_FUNCTIONS(MSA_FIND)
#undef MSA_FIND
  return f;
}

const Functions& library() {
  static const Functions functions = open_library();
  return functions;
}

void check(cublasStatus_t status, const char* what) {
  if (status == CUBLAS_STATUS_SUCCESS) return;
  throw Error(library().cublasLtGetStatusString(status), std::string("cuBLASLt, ") + what);
}

cudaDataType_t data_type(DType type) {
  MSA_CHECK(type == DType::kF32 || type == DType::kBF16);
  return type == DType::kF32 ? CUDA_R_32F : CUDA_R_16BF;
}

/// The largest power of two up to 256 that divides the address.
uint32_t alignment(const void* p) {
  const auto address = reinterpret_cast<uintptr_t>(p);
  return static_cast<uint32_t>(std::min<uintptr_t>(address & (~address + 1), 256));
}

std::string describe(const Product& p) {
  return "product [" + std::to_string(p.rows) + ", " + std::to_string(p.in) + "] by [" + std::to_string(p.out) + ", " +
         std::to_string(p.in) + "] " + traits(p.operand).name + " to " + traits(p.result).name;
}

}  // namespace

CublasLt::CublasLt() {
  check(library().cublasLtCreate(&handle_), "cublasLtCreate");
  cuda_check(cudaMalloc(&workspace_, kWorkspaceBytes), "workspace of cuBLASLt");
}

CublasLt::~CublasLt() {
  for (auto& [key, plan] : plans_) destroy(plan);
  cudaFree(workspace_);
  library().cublasLtDestroy(handle_);
}

void CublasLt::destroy(Plan& plan) {
  library().cublasLtMatmulDescDestroy(plan.operation);
  for (const cublasLtMatrixLayout_t layout : {plan.weight, plan.x, plan.y})
    library().cublasLtMatrixLayoutDestroy(layout);
}

/// cuBLASLt counts columns first, so what is row-major here is its own transpose there: yᵀ = weight · xᵀ.
CublasLt::Plan CublasLt::make_plan(const Product& p, const Key& key) {
  const Functions& f = library();
  const auto in = static_cast<uint64_t>(p.in), out = static_cast<uint64_t>(p.out), rows = static_cast<uint64_t>(p.rows);
  Plan plan;
  check(f.cublasLtMatmulDescCreate(&plan.operation, CUBLAS_COMPUTE_32F, CUDA_R_32F), "cublasLtMatmulDescCreate");
  const cublasOperation_t transposed = CUBLAS_OP_T;
  check(f.cublasLtMatmulDescSetAttribute(plan.operation, CUBLASLT_MATMUL_DESC_TRANSA, &transposed, sizeof(transposed)),
        "transposition");
  check(f.cublasLtMatrixLayoutCreate(&plan.weight, data_type(p.operand), in, out, p.in), "layout of the weight");
  check(f.cublasLtMatrixLayoutCreate(&plan.x, data_type(p.operand), in, rows, p.x_stride), "layout of x");
  check(f.cublasLtMatrixLayoutCreate(&plan.y, data_type(p.result), out, rows, p.y_stride), "layout of y");
  choose_algorithm(plan, p, key);
  return plan;
}

void CublasLt::choose_algorithm(Plan& plan, const Product& p, const Key& key) {
  const Functions& f = library();
  cublasLtMatmulPreference_t preference = nullptr;
  check(f.cublasLtMatmulPreferenceCreate(&preference), "cublasLtMatmulPreferenceCreate");
  const auto set = [&](cublasLtMatmulPreferenceAttributes_t attribute, const auto& value) {
    check(f.cublasLtMatmulPreferenceSetAttribute(preference, attribute, &value, sizeof(value)), "preference");
  };
  set(CUBLASLT_MATMUL_PREF_MAX_WORKSPACE_BYTES, kWorkspaceBytes);
  set(CUBLASLT_MATMUL_PREF_MIN_ALIGNMENT_A_BYTES, std::get<9>(key));
  set(CUBLASLT_MATMUL_PREF_MIN_ALIGNMENT_B_BYTES, std::get<8>(key));
  set(CUBLASLT_MATMUL_PREF_MIN_ALIGNMENT_C_BYTES, std::get<10>(key));
  set(CUBLASLT_MATMUL_PREF_MIN_ALIGNMENT_D_BYTES, std::get<10>(key));
  cublasLtMatmulHeuristicResult_t result{};
  int found = 0;
  const cublasStatus_t status = f.cublasLtMatmulAlgoGetHeuristic(handle_, plan.operation, plan.weight, plan.x, plan.y,
                                                                 plan.y, preference, 1, &result, &found);
  f.cublasLtMatmulPreferenceDestroy(preference);
  if (status != CUBLAS_STATUS_SUCCESS || found == 0) {
    throw Error(std::string("no algorithm: ") + f.cublasLtGetStatusString(status), "cuBLASLt, " + describe(p));
  }
  plan.algorithm = result.algo;
}

void CublasLt::multiply(const Product& p, cudaStream_t stream) {
  const Key key{p.rows,     p.in,       p.out,          p.operand,           p.result,      p.accumulate,
                p.x_stride, p.y_stride, alignment(p.x), alignment(p.weight), alignment(p.y)};
  auto found = plans_.find(key);
  if (found == plans_.end()) {
    if (plans_.size() >= kMostPlans) {
      for (auto& [old, plan] : plans_) destroy(plan);
      plans_.clear();
    }
    found = plans_.emplace(key, make_plan(p, key)).first;
  }
  const Plan& plan = found->second;
  const float one = 1.0f, beta = p.accumulate ? 1.0f : 0.0f;
  const cublasStatus_t status =
      library().cublasLtMatmul(handle_, plan.operation, &one, p.weight, plan.weight, p.x, plan.x, &beta, p.y, plan.y,
                               p.y, plan.y, &plan.algorithm, workspace_, kWorkspaceBytes, stream);
  if (status != CUBLAS_STATUS_SUCCESS) {
    throw Error(library().cublasLtGetStatusString(status), "cuBLASLt, " + describe(p));
  }
}

}  // namespace msa
