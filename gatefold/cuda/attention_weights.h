#pragma once

#include <cuda_bf16.h>
#include <cuda_runtime_api.h>

#include <memory>
#include <vector>

#include "gatefold/cuda/attention.h"
#include "gatefold/cuda/device_memory.h"
#include "gatefold/cuda/tiles.h"
#include "gatefold/cuda/weight_upload.h"

namespace gatefold::cuda {

// The shape of a model as far as an attention-service knows it.
struct AttentionModelShape {
  int n_layers = 0;
  int64_t vocab_size = 0;
  int64_t d_model = 0;  // a multiple of 8
  float norm_eps = 0;
  AttentionShape attention;
  int max_positions = 0;  // of a sequence

  int64_t q_width() const { return int64_t{attention.n_heads} * attention.head_dim; }
  int64_t kv_width() const { return int64_t{attention.n_kv_heads} * attention.head_dim; }
  int64_t qkv_width() const { return q_width() + 2 * kv_width(); }

  TileShape qkv() const { return {qkv_width(), d_model, false}; }  // q, k, v on top of each other
  TileShape o() const { return {d_model, q_width(), false}; }
  TileShape lm_head() const { return {vocab_size, d_model, false}; }

  // Bfloat16 elements of the keys and values of one KV block in one layer.
  int64_t BlockElements() const {
    return KvCacheLayout{attention.n_kv_heads, attention.head_dim}.BlockElements();
  }
  // Of them in all layers.
  size_t KvBlockBytes() const {
    return static_cast<size_t>(BlockElements()) * n_layers * sizeof(__nv_bfloat16);
  }
  // Of what AttentionWeights holds: matrices are padded to tiles, and one that is embedding and LM head
  // at once is there as both.
  size_t WeightBytes() const;
  bool IsServed() const {
    return n_layers > 0 && vocab_size > 0 && d_model > 0 && d_model % 8 == 0 && max_positions > 0 &&
           attention.IsServed();
  }
};

// One layer's weights on the host.
struct HostAttentionLayer {
  const float* norm = nullptr;      // [d_model]
  HostMatrix q, k, v;               // [n_heads or n_kv_heads * head_dim, d_model]
  HostMatrix o;                     // [d_model, n_heads * head_dim]
  const float* qkv_bias = nullptr;  // [qkv_width], or null
  const float* o_bias = nullptr;    // [d_model], or null
};

// What an attention-service holds of a model, on the device: matrices as bfloat16 tiles, the
// embedding as bfloat16 rows, norms and biases as float32. Immutable once it is loaded.
class AttentionWeights {
 public:
  struct Layer {
    const float* norm = nullptr;
    const void* qkv = nullptr;  // tiles
    const float* qkv_bias = nullptr;
    const void* o = nullptr;  // tiles
    const float* o_bias = nullptr;
  };

  // shape.IsServed().
  explicit AttentionWeights(const AttentionModelShape& shape)
      : shape_(shape), layers_(shape.n_layers), memory_(shape.n_layers) {}

  // Each once, in any order, through an upload that is prepared; in place after its Finish().
  cudaError_t LoadEmbedding(const HostMatrix& embedding, WeightUpload* upload);
  cudaError_t LoadLayer(int layer, const HostAttentionLayer& weights, WeightUpload* upload);
  cudaError_t LoadHead(const float* final_norm, const HostMatrix& lm_head, WeightUpload* upload);
  // cos, sin: [max_positions, head_dim / 2], attention factor included.
  cudaError_t LoadRope(const float* cos, const float* sin, WeightUpload* upload);

  const AttentionModelShape& shape() const { return shape_; }
  const __nv_bfloat16* embedding() const {  // [vocab_size, d_model]
    return reinterpret_cast<const __nv_bfloat16*>(embedding_.get());
  }
  const Layer& layer(int index) const { return layers_[index]; }
  const float* final_norm() const { return reinterpret_cast<const float*>(final_norm_.get()); }
  const void* lm_head() const { return lm_head_.get(); }  // tiles
  const RopeTables& rope() const { return rope_; }
  size_t bytes() const;  // shape().WeightBytes(), when all is loaded

 private:
  const AttentionModelShape shape_;
  DeviceMemory embedding_, final_norm_, lm_head_, rope_memory_;
  std::vector<Layer> layers_;
  std::vector<DeviceMemory> memory_;  // by layer
  RopeTables rope_;
};

}  // namespace gatefold::cuda
