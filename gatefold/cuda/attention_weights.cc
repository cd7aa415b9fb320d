#include "gatefold/cuda/attention_weights.h"

#include "gatefold/cuda/cuda_macros.h"

namespace gatefold::cuda {
namespace {

// Pieces of one allocation, each aligned as an allocation is.
class Pieces {
 public:
  size_t Add(size_t bytes) {
    const size_t at = bytes_;
    bytes_ += static_cast<size_t>(RoundUp(static_cast<int64_t>(bytes), 256));
    return at;
  }
  size_t bytes() const { return bytes_; }

 private:
  size_t bytes_ = 0;
};

// What there is of a layer.
struct LayerPieces {
  explicit LayerPieces(const AttentionModelShape& shape)
      : qkv_at(pieces.Add(shape.qkv().weight_bytes())),
        o_at(pieces.Add(shape.o().weight_bytes())),
        norm_at(pieces.Add(shape.d_model * sizeof(float))),
        qkv_bias_at(pieces.Add(shape.qkv_width() * sizeof(float))),
        o_bias_at(pieces.Add(shape.d_model * sizeof(float))) {}
  Pieces pieces;
  const size_t qkv_at, o_at, norm_at, qkv_bias_at, o_bias_at;
};

size_t EmbeddingBytes(const AttentionModelShape& shape) {
  return static_cast<size_t>(shape.vocab_size) * shape.d_model * sizeof(uint16_t);
}
int64_t RopeFloats(const AttentionModelShape& shape) {  // of cosines, and of sines
  return int64_t{shape.max_positions} * (shape.attention.head_dim / 2);
}

cudaError_t ReserveZeroed(DeviceMemory* memory, size_t bytes, WeightUpload* upload) {
  GF_CUDA_RETURN_IF_ERROR(memory->Reserve(bytes));
  return upload->Zero(memory->get(), bytes);
}

}  // namespace

size_t AttentionModelShape::WeightBytes() const {
  return EmbeddingBytes(*this) + n_layers * LayerPieces(*this).pieces.bytes() + d_model * sizeof(float) +
         lm_head().weight_bytes() + 2 * RopeFloats(*this) * sizeof(float);
}

cudaError_t AttentionWeights::LoadEmbedding(const HostMatrix& embedding, WeightUpload* upload) {
  if (embedding.n_rows != shape_.vocab_size || embedding.n_cols != shape_.d_model) {
    return cudaErrorInvalidValue;
  }
  GF_CUDA_RETURN_IF_ERROR(embedding_.Reserve(EmbeddingBytes(shape_)));
  return upload->SendRows(embedding, embedding_.get());
}

cudaError_t AttentionWeights::LoadLayer(int layer, const HostAttentionLayer& weights,
                                        WeightUpload* upload) {
  const TileShape qkv = shape_.qkv(), o = shape_.o();
  if (weights.q.n_rows != shape_.q_width() || weights.k.n_rows != shape_.kv_width() ||
      weights.v.n_rows != shape_.kv_width() || weights.o.n_rows != shape_.d_model) {
    return cudaErrorInvalidValue;
  }
  const LayerPieces at(shape_);
  GF_CUDA_RETURN_IF_ERROR(ReserveZeroed(&memory_[layer], at.pieces.bytes(), upload));
  char* const memory = memory_[layer].get();

  int64_t first_out = 0;
  for (const HostMatrix* matrix : {&weights.q, &weights.k, &weights.v}) {
    GF_CUDA_RETURN_IF_ERROR(upload->SendTiles(*matrix, qkv, first_out, 0, memory + at.qkv_at));
    first_out += matrix->n_rows;
  }
  GF_CUDA_RETURN_IF_ERROR(upload->SendTiles(weights.o, o, 0, 0, memory + at.o_at));
  auto* const norm = reinterpret_cast<float*>(memory + at.norm_at);
  GF_CUDA_RETURN_IF_ERROR(upload->SendFloats(weights.norm, shape_.d_model, norm));
  Layer loaded = {.norm = norm, .qkv = memory + at.qkv_at, .o = memory + at.o_at};
  if (weights.qkv_bias != nullptr) {
    auto* const bias = reinterpret_cast<float*>(memory + at.qkv_bias_at);
    GF_CUDA_RETURN_IF_ERROR(upload->SendFloats(weights.qkv_bias, shape_.qkv_width(), bias));
    loaded.qkv_bias = bias;
  }
  if (weights.o_bias != nullptr) {
    auto* const bias = reinterpret_cast<float*>(memory + at.o_bias_at);
    GF_CUDA_RETURN_IF_ERROR(upload->SendFloats(weights.o_bias, shape_.d_model, bias));
    loaded.o_bias = bias;
  }
  layers_[layer] = loaded;
  return cudaSuccess;
}

cudaError_t AttentionWeights::LoadHead(const float* final_norm, const HostMatrix& lm_head,
                                       WeightUpload* upload) {
  if (lm_head.n_rows != shape_.vocab_size) return cudaErrorInvalidValue;
  GF_CUDA_RETURN_IF_ERROR(final_norm_.Reserve(shape_.d_model * sizeof(float)));
  GF_CUDA_RETURN_IF_ERROR(
      upload->SendFloats(final_norm, shape_.d_model, reinterpret_cast<float*>(final_norm_.get())));
  GF_CUDA_RETURN_IF_ERROR(ReserveZeroed(&lm_head_, shape_.lm_head().weight_bytes(), upload));
  return upload->SendTiles(lm_head, shape_.lm_head(), 0, 0, lm_head_.get());
}

cudaError_t AttentionWeights::LoadRope(const float* cos, const float* sin, WeightUpload* upload) {
  const int64_t n = RopeFloats(shape_);
  GF_CUDA_RETURN_IF_ERROR(rope_memory_.Reserve(2 * n * sizeof(float)));
  auto* const table = reinterpret_cast<float*>(rope_memory_.get());
  GF_CUDA_RETURN_IF_ERROR(upload->SendFloats(cos, n, table));
  GF_CUDA_RETURN_IF_ERROR(upload->SendFloats(sin, n, table + n));
  rope_ = {table, table + n};
  return cudaSuccess;
}

size_t AttentionWeights::bytes() const {
  size_t bytes = embedding_.bytes() + final_norm_.bytes() + lm_head_.bytes() + rope_memory_.bytes();
  for (const DeviceMemory& layer : memory_) bytes += layer.bytes();
  return bytes;
}

}  // namespace gatefold::cuda
