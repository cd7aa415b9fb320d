#pragma once

#include <memory>
#include <vector>

#include "absl/status/statusor.h"
#include "gatefold/base/thread_pool.h"
#include "gatefold/checkpoint/load_progress.h"
#include "gatefold/kernels/packed_matrix.h"
#include "gatefold/model/model_weights.h"
#include "gatefold/model/rope.h"
#include "gatefold/tensor/buffer.h"

namespace gatefold {

// The weights an attention-service holds, laid out for the kernels. Immutable.
class AttentionModel {
 public:
  struct Layer {
    Buffer norm;       // float32 [d_model]
    PackedMatrix qkv;  // [(n_heads + 2 n_kv_heads) * head_dim, d_model]: q, k, v in this order
    PackedMatrix o;    // [d_model, n_heads * head_dim]
    Buffer qkv_bias;   // float32, empty if the model has none
    Buffer o_bias;
  };

  // Copies its pieces out of the checkpoint with all threads and drops the mapped pages behind it.
  // `max_positions`: how many positions a sequence may have. `progress` may be null.
  static std::unique_ptr<AttentionModel> Load(const ModelWeights& weights, int max_positions,
                                              ThreadPool* threads, LoadProgress* progress);

  const ModelConfig& config() const { return config_; }
  const Layer& layer(int index) const { return layers_[index]; }
  const PackedMatrix& lm_head() const { return lm_head_; }  // [vocab_size, d_model]
  const float* final_norm() const { return final_norm_.as<float>(); }
  const RopeTable& rope() const { return rope_; }

  // Row `token_id` of the embedding as float32 [d_model].
  void Embed(int32_t token_id, float* x) const;

  uint64_t weight_bytes() const { return weight_bytes_; }

 private:
  AttentionModel(const ModelConfig& config, RopeTable rope)
      : config_(config), rope_(std::move(rope)) {}

  const ModelConfig config_;
  RopeTable rope_;
  Buffer embedding_;  // [vocab_size, d_model] in the checkpoint's type
  DType embedding_dtype_ = DType::kF32;
  std::vector<Layer> layers_;
  Buffer final_norm_;
  PackedMatrix lm_head_;
  uint64_t weight_bytes_ = 0;
};

}  // namespace gatefold
