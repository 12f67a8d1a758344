#include "core/cudnn.h"

#include <cmath>
#include <cstdlib>
#include <string_view>

#include "core/error.h"
#include "core/log.h"

#if MSA_HAS_CUDNN
#include <cudnn_frontend.h>

#include "core/cudnn_library.h"

namespace msa {
namespace {

namespace fe = cudnn_frontend;
using Attributes = fe::graph::Tensor_attributes;
using Node = std::shared_ptr<Attributes>;

/// Names of a graph's tensors for the one who runs it.
enum Id : int64_t { kQ = 1, kK, kV, kOut, kQPlaces, kKPlaces, kVPlaces, kOutPlaces, kTokens };

Attributes heads(const char* name, Id id, const PackedAttentionShape& s, int64_t n_heads, int64_t stride) {
  return Attributes()
      .set_name(name)
      .set_uid(id)
      .set_dim({s.sequences, n_heads, s.longest, s.d})
      .set_stride({s.longest * stride, s.d, stride, 1});
}

Node numbers(fe::graph::Graph& graph, const char* name, Id id, int64_t n) {
  return graph.tensor(Attributes()
                          .set_name(name)
                          .set_uid(id)
                          .set_dim({n, 1, 1, 1})
                          .set_stride({1, 1, 1, 1})
                          .set_data_type(fe::DataType_t::INT32));
}

/// `places` makes a layout ragged: where each sequence begins.
void describe(fe::graph::Graph& graph, const PackedAttentionShape& s) {
  const auto input = [&](const char* name, Id id, Id places, int64_t n_heads, int64_t stride) {
    const Node at = numbers(graph, "places", places, s.sequences + 1);
    return graph.tensor(heads(name, id, s, n_heads, stride).set_ragged_offset(at));
  };
  const Node q = input("q", kQ, kQPlaces, s.heads, s.q_stride);
  const Node k = input("k", kK, kKPlaces, s.groups, s.k_stride);
  const Node v = input("v", kV, kVPlaces, s.groups, s.v_stride);
  const Node tokens = numbers(graph, "tokens", kTokens, s.sequences);
  // The composed graph: cuDNN 9.19 has no other for packed sequences on Hopper.
  auto how = fe::graph::SDPA_attributes()
                 .set_name("attention")
                 .set_implementation(fe::AttentionImplementation_t::COMPOSITE)
                 .set_generate_stats(false)
                 .set_causal_mask(true)
                 .set_padding_mask(true)
                 .set_seq_len_q(tokens)
                 .set_seq_len_kv(tokens)
                 .set_attn_scale(static_cast<float>(1.0 / std::sqrt(static_cast<double>(s.d))));
  const Node out = graph.sdpa(q, k, v, how)[0];
  const Attributes layout = heads("out", kOut, s, s.heads, s.out_stride);
  out->set_output(true).set_uid(kOut).set_dim(layout.get_dim()).set_stride(layout.get_stride());
  out->set_ragged_offset(numbers(graph, "places", kOutPlaces, s.sequences + 1));
}

std::string version_name() {
  const size_t v = cudnnGetVersion();
  return "cuDNN " + std::to_string(v / 10000) + "." + std::to_string(v / 100 % 100) + "." + std::to_string(v % 100);
}

}  // namespace

struct Cudnn::Plan {
  fe::graph::Graph graph;
  int64_t workspace_bytes = 0;
};

std::unique_ptr<Cudnn> Cudnn::open(void* stream) {
  const auto without = [](const std::string& why) {
    spdlog::debug("attention by our own kernels, not by cuDNN: {}", why);
    return nullptr;
  };
  const char* const choice = std::getenv("MSA_CUDNN");
  if (choice != nullptr && std::string_view(choice) == "0") return without("MSA_CUDNN=0");
  if (const char* const problem = open_cudnn_library()) return without(problem);
  if (cudnnGetVersion() < 90000) return without(version_name() + " is older than 9");
  auto made = std::unique_ptr<Cudnn>(new Cudnn(stream));
  if (made->handle_ == nullptr) return without(version_name() + " cannot use this GPU");
  spdlog::debug("attention over documents by {}", made->name_);
  return made;
}

Cudnn::Cudnn(void* stream) : name_(version_name()) {
  if (cudnnCreate(&handle_) != CUDNN_STATUS_SUCCESS) handle_ = nullptr;
  if (handle_ != nullptr) MSA_CHECK(cudnnSetStream(handle_, static_cast<cudaStream_t>(stream)) == CUDNN_STATUS_SUCCESS);
}

Cudnn::~Cudnn() {
  plans_.clear();
  if (handle_ != nullptr) cudnnDestroy(handle_);
}

std::unique_ptr<Cudnn::Plan> Cudnn::make_plan(const PackedAttentionShape& s) {
  auto plan = std::make_unique<Plan>();
  plan->graph.set_io_data_type(fe::DataType_t::BFLOAT16)
      .set_intermediate_data_type(fe::DataType_t::FLOAT)
      .set_compute_data_type(fe::DataType_t::FLOAT);
  describe(plan->graph, s);
  fe::error_t status = plan->graph.build(handle_, {fe::HeurMode_t::A});
  if (status.is_good()) status = plan->graph.get_workspace_size(plan->workspace_bytes);
  const std::string what = std::to_string(s.heads) + " heads, " + std::to_string(s.groups) + " of keys, of " +
                           std::to_string(s.d) + ", " + std::to_string(s.sequences) + " sequences of up to " +
                           std::to_string(s.longest);
  if (status.is_good()) {
    spdlog::debug("attention by {}: {}", name_, what);
    return plan;
  }
  spdlog::debug("attention not by {}: {}: {}", name_, what, status.get_message());
  return nullptr;
}

bool Cudnn::has_plan(const PackedAttentionShape& shape, int64_t& bytes) {
  auto found = plans_.find(shape);
  if (found == plans_.end()) found = plans_.emplace(shape, make_plan(shape)).first;
  if (found->second == nullptr) return false;
  bytes = found->second->workspace_bytes;
  return true;
}

void Cudnn::attend(const PackedAttentionShape& s, const PackedAttentionData& data) {
  const auto found = plans_.find(s);
  MSA_CHECK(found != plans_.end() && found->second != nullptr);
  const auto places = [&](int64_t row) { return const_cast<int32_t*>(data.places) + row * (s.sequences + 1); };
  std::unordered_map<int64_t, void*> tensors{{kQ, const_cast<void*>(data.q)},
                                             {kK, const_cast<void*>(data.k)},
                                             {kV, const_cast<void*>(data.v)},
                                             {kOut, data.out},
                                             {kQPlaces, places(0)},
                                             {kKPlaces, places(1)},
                                             {kVPlaces, places(2)},
                                             {kOutPlaces, places(3)},
                                             {kTokens, places(4)}};
  fe::error_t status = found->second->graph.execute(handle_, tensors, data.workspace);
  if (status.is_bad()) throw Error(status.get_message(), name_ + ", attention", "MSA_CUDNN=0 uses our own kernel");
}

}  // namespace msa

#else

namespace msa {

struct Cudnn::Plan {};

std::unique_ptr<Cudnn> Cudnn::open(void*) {
  spdlog::debug("attention by our own kernels, not by cuDNN: built without its headers");
  return nullptr;
}
Cudnn::~Cudnn() = default;
bool Cudnn::has_plan(const PackedAttentionShape&, int64_t&) { return false; }
void Cudnn::attend(const PackedAttentionShape&, const PackedAttentionData&) { MSA_CHECK(false); }

}  // namespace msa

#endif
