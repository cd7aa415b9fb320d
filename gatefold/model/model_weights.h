#pragma once

#include <cstdint>
#include <memory>
#include <string>
#include <vector>

#include "absl/base/call_once.h"
#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "gatefold/checkpoint/checkpoint.h"
#include "gatefold/checkpoint/load_progress.h"
#include "gatefold/model/model_config.h"
#include "gatefold/tensor/tensor_view.h"

namespace gatefold {

// All views point into the mapped checkpoint (possibly unaligned) and live as long as the
// ModelWeights. Matrices are [out, in]: y = W x + bias. A bias or matrix that the model does not
// have has `data` null. d = head_dim.

struct AttentionLayerWeights {
  TensorView norm;  // [d_model], before attention
  MatrixView q;     // [n_heads * d, d_model]
  MatrixView k;     // [n_kv_heads * d, d_model]
  MatrixView v;     // [n_kv_heads * d, d_model]
  MatrixView o;     // [d_model, n_heads * d]
  TensorView q_bias, k_bias, v_bias, o_bias;
};

struct RouterLayerWeights {
  TensorView norm;  // [d_model], between attention and experts
  MatrixView gate;  // [n_experts, d_model]; null for dense layers
};

// y = w2 (silu(w1 x + b1) * (w3 x + b3)) + b2. f = d_ff of a sparse expert, or a slice's share of
// it. All matrices of all experts of a model have one dtype.
struct ExpertWeightsView {
  MatrixView w1;      // [f, d_model] gate
  MatrixView w3;      // [f, d_model] up
  MatrixView w2;      // [d_model, f] down; row_stride > f for a slice
  TensorView b1, b3;  // [f]
  TensorView b2;      // [d_model]; of a dense MLP only slice 0 has it, since slices are added up
};

// Rows [begin, end) of d_ff that make slice `slice`. Slices are consecutive; the first
// d_ff % n_slices are one longer than the others.
struct SliceRange {
  int begin = 0;
  int end = 0;
};
SliceRange DenseSlice(int d_ff, int n_slices, int slice);

// Bytes in the checkpoint that each kind of service loads.
struct RoleBytes {
  uint64_t attention = 0;  // embedding, attention, final norm, LM head
  uint64_t router = 0;     // norms and gates
  uint64_t experts = 0;
};

// A model's tensors by what they are for. Opening checks names, types and shapes and reads no
// weights; a service then touches only the pieces of its role, so only those are read from disk.
// Threads: safe.
class ModelWeights {
 public:
  // Errors: those of ReadModelConfig and Checkpoint::Open; InvalidArgument naming the tensor that
  // is missing, has another shape, or belongs to nothing we compute; Unimplemented for its type.
  static absl::StatusOr<std::unique_ptr<ModelWeights>> Open(const std::string& dir,
                                                            const ModelLoadOptions& options = {});
  static absl::StatusOr<std::unique_ptr<ModelWeights>> Create(
      const ModelConfig& config, std::unique_ptr<Checkpoint> checkpoint);

  const ModelConfig& config() const { return config_; }

  MatrixView embedding() const { return embedding_; }    // [vocab_size, d_model]
  TensorView final_norm() const { return final_norm_; }  // [d_model]
  MatrixView lm_head() const { return lm_head_; }  // [vocab_size, d_model]; may be embedding()

  // 0 <= layer < n_layers, 0 <= expert < config().experts_per_layer().
  const AttentionLayerWeights& Attention(int layer) const { return attention_[layer]; }
  const RouterLayerWeights& Router(int layer) const { return router_[layer]; }
  ExpertWeightsView Expert(int layer, int expert) const;

  uint64_t ExpertBytes(int layer, int expert) const;
  const RoleBytes& role_bytes() const { return role_bytes_; }
  uint64_t n_parameters() const { return n_parameters_; }
  uint64_t n_active_parameters() const { return n_active_parameters_; }  // read for one token
  uint64_t n_active_bytes() const { return n_active_bytes_; }            // the same in bytes
  DType expert_dtype() const { return expert_dtype_; }

  // Read an expert ahead; give its pages back after it was copied. Dropping what another thread
  // still reads only costs it time.
  void PrefetchExpert(int layer, int expert) const;
  void DropExpert(int layer, int expert) const;
  // Gives back the pages of a view that was copied, and counts its bytes. `progress` may be null.
  static void DropCopied(const MatrixView& view, LoadProgress* progress);

  // Hex; equal between services iff configuration and weights are (as far as WeightDigest sees).
  // The first call reads samples of all weights; do it once, off the request path.
  const std::string& Fingerprint() const;

 private:
  ModelWeights() = default;
  absl::Status Bind();
  void CountBytes();

  ModelConfig config_;
  std::unique_ptr<Checkpoint> checkpoint_;
  MatrixView embedding_;
  TensorView final_norm_;
  MatrixView lm_head_;
  std::vector<AttentionLayerWeights> attention_;
  std::vector<RouterLayerWeights> router_;
  // [n_layers, n_experts]; of a dense model [n_layers], before slicing.
  std::vector<ExpertWeightsView> mlps_;
  std::vector<std::string> used_names_;
  RoleBytes role_bytes_;
  uint64_t n_parameters_ = 0;
  uint64_t n_active_parameters_ = 0;
  uint64_t n_active_bytes_ = 0;
  DType expert_dtype_ = DType::kF32;

  mutable absl::once_flag fingerprint_once_;
  mutable std::string fingerprint_;
};

}  // namespace gatefold
