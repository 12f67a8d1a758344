// Attention by cuDNN. The library is opened when it is first asked for: the program runs where it is not installed, and
// is built without it where its headers are missing.
#pragma once
#include <compare>
#include <cstdint>
#include <map>
#include <memory>
#include <string>

struct cudnnContext;

namespace msa {

/// Causal attention inside each of several sequences that lie one behind the other. What a plan depends on.
struct PackedAttentionShape {
  int64_t heads = 0, groups = 0, d = 0;
  int64_t q_stride = 0, k_stride = 0, v_stride = 0, out_stride = 0;  // elements between rows
  int64_t sequences = 0, longest = 0;  // at least as many, as long, as there are: rounded up, they share a plan
  auto operator<=>(const PackedAttentionShape&) const = default;
};

/// All on the device. q, k, v, out at multiples of 16 bytes, their rows too.
struct PackedAttentionData {
  const void* q = nullptr;  // BF16 [T, heads, d]
  const void* k = nullptr;  // BF16 [T, groups, d]
  const void* v = nullptr;  // BF16 [T, groups, d]
  void* out = nullptr;      // BF16 [T, heads, d]
  // I32 [5, sequences + 1]: elements of q, k, v and out before each sequence, then its tokens. Behind the last one: all
  // elements, and no tokens.
  const int32_t* places = nullptr;
  void* workspace = nullptr;
};

/// Not for two threads at once.
class Cudnn {
 public:
  /// Null where there is none for the current GPU; the log says why (debug). Work goes to `stream` (a cudaStream_t).
  static std::unique_ptr<Cudnn> open(void* stream);
  ~Cudnn();
  Cudnn(const Cudnn&) = delete;
  Cudnn& operator=(const Cudnn&) = delete;

  /// "cuDNN 9.19.0"
  const std::string& name() const { return name_; }
  /// Whether there is a plan for the shape, made here if need be; `bytes`: the workspace it takes.
  bool has_plan(const PackedAttentionShape& shape, int64_t& bytes);
  void attend(const PackedAttentionShape& shape, const PackedAttentionData& data);

 private:
  struct Plan;
  explicit Cudnn(void* stream);
  std::unique_ptr<Plan> make_plan(const PackedAttentionShape& shape);

  cudnnContext* handle_ = nullptr;
  std::string name_;
  std::map<PackedAttentionShape, std::unique_ptr<Plan>> plans_;  // null: refused
};

}  // namespace msa
