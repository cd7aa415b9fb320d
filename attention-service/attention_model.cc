#include "attention-service/attention_model.h"

#include <cstring>
#include <utility>

#include "gatefold/kernels/to_floats.h"

namespace gatefold {
namespace {

PackedMatrix Pack(const MatrixView& view, ThreadPool* threads, LoadProgress* progress) {
  PackedMatrix packed(view, threads);
  ModelWeights::DropCopied(view, progress);
  return packed;
}

// q, k and v on top of each other: one product instead of three.
PackedMatrix PackQkv(const AttentionLayerWeights& weights, ThreadPool* threads,
                     LoadProgress* progress) {
  const int64_t n_out = weights.q.n_rows + weights.k.n_rows + weights.v.n_rows;
  PackedMatrix packed(weights.q.dtype, n_out, weights.q.n_cols);
  int64_t first = 0;
  for (const MatrixView* view : {&weights.q, &weights.k, &weights.v}) {
    packed.Fill(first, *view, threads);
    first += view->n_rows;
    ModelWeights::DropCopied(*view, progress);
  }
  return packed;
}

Buffer QkvBias(const AttentionLayerWeights& weights) {
  if (weights.q_bias.data == nullptr) return Buffer();
  Buffer bias((weights.q.n_rows + weights.k.n_rows + weights.v.n_rows) * sizeof(float));
  float* to = bias.as<float>();
  for (const TensorView* view : {&weights.q_bias, &weights.k_bias, &weights.v_bias}) {
    ReadFloats(view->dtype, view->data, view->n_elements(), to);
    to += view->n_elements();
  }
  return bias;
}

}  // namespace

std::unique_ptr<AttentionModel> AttentionModel::Load(const ModelWeights& weights, int max_positions,
                                                     ThreadPool* threads, LoadProgress* progress) {
  const ModelConfig& config = weights.config();
  RopeTable rope(ComputeRopeFrequencies(config.rope, config.head_dim), max_positions);
  std::unique_ptr<AttentionModel> model(new AttentionModel(config, std::move(rope)));
  const MatrixView embedding = weights.embedding();
  model->embedding_dtype_ = embedding.dtype;
  model->embedding_ = Buffer(embedding.n_rows * embedding.n_cols * DTypeBytes(embedding.dtype));
  std::memcpy(model->embedding_.data(), embedding.data, model->embedding_.size_bytes());
  ModelWeights::DropCopied(embedding, progress);
  for (int i = 0; i < config.n_layers; ++i) {
    const AttentionLayerWeights& views = weights.Attention(i);
    Layer layer;
    layer.norm = ToFloats(views.norm);
    layer.qkv = PackQkv(views, threads, progress);
    layer.o = Pack(views.o, threads, progress);
    layer.qkv_bias = QkvBias(views);
    layer.o_bias = ToFloats(views.o_bias);
    model->weight_bytes_ += layer.qkv.size_bytes() + layer.o.size_bytes();
    model->layers_.push_back(std::move(layer));
  }
  model->final_norm_ = ToFloats(weights.final_norm());
  // The embedding once more, where that is the head too.
  model->lm_head_ =
      Pack(weights.lm_head(), threads, config.tie_word_embeddings ? nullptr : progress);
  model->weight_bytes_ += model->embedding_.size_bytes() + model->lm_head_.size_bytes();
  return model;
}

void AttentionModel::Embed(int32_t token_id, float* x) const {
  const size_t row_bytes = config_.d_model * DTypeBytes(embedding_dtype_);
  ReadFloats(embedding_dtype_, embedding_.as<char>() + token_id * row_bytes, config_.d_model, x);
}

}  // namespace gatefold
