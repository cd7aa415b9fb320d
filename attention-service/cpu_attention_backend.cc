#include <algorithm>
#include <cmath>
#include <vector>

#include "attention-service/attention_backend.h"
#include "attention-service/attention_model.h"
#include "attention-service/kv_storage.h"
#include "gatefold/kernels/attention.h"
#include "gatefold/kernels/isa.h"
#include "gatefold/kernels/matmul.h"
#include "gatefold/kernels/rows.h"

namespace gatefold {
namespace {

class CpuAttentionBackend final : public AttentionBackend {
 public:
  CpuAttentionBackend(const ModelWeights* weights, ThreadPool* threads)
      : weights_(weights), config_(weights->config()), threads_(threads) {}

  std::string name() const override { return "cpu"; }
  std::string device() const override { return kernels::Kernels().isa; }
  uint64_t numerics_class() const override { return kernels::NumericsClass(); }
  KvShape kv_shape() const override {
    return {config_.n_layers, {.n_kv_heads = config_.n_kv_heads, .head_dim = config_.head_dim}};
  }
  size_t memory_bytes() const override { return KvBlockPool::MachineBytes(); }

  absl::Status Load(int n_kv_blocks, int max_positions, LoadProgress* progress) override {
    kv_ = std::make_unique<KvStorage>(kv_shape(), n_kv_blocks);
    model_ = AttentionModel::Load(*weights_, max_positions, threads_, progress);
    return absl::OkStatus();
  }

  absl::Status EmbedAndAttend(absl::Span<const AttentionRow> rows,
                              absl::Span<const int32_t> token_ids, float* x) override {
    for (size_t i = 0; i < rows.size(); ++i) model_->Embed(token_ids[i], x + i * config_.d_model);
    return Attend(0, rows, x);
  }

  absl::Status Attend(int layer, absl::Span<const AttentionRow> rows, float* x) override {
    Reserve(rows.size());
    const AttentionModel::Layer& weights = model_->layer(layer);
    const int64_t n = static_cast<int64_t>(rows.size());
    kernels::RmsNorm(x, weights.norm.as<float>(), static_cast<float>(config_.norm_eps),
                     h_.as<float>(), n, config_.d_model, threads_);
    kernels::MatMul(weights.qkv, h_.as<float>(), qkv_.as<float>(), n, threads_,
                    weights.qkv_bias.as<float>());
    RotateAndAppend(layer, rows);
    std::vector<kernels::AttentionRow> queries;
    for (int64_t i = 0; i < n; ++i) {
      queries.push_back({qkv_.as<float>() + i * weights.qkv.n_out(),
                         heads_.as<float>() + i * config_.q_width(), rows[i].position,
                         rows[i].block_table});
    }
    const float scale = 1.0f / std::sqrt(static_cast<float>(config_.head_dim));
    kernels::Attention(kv_->shape().layout, config_.n_heads, config_.sliding_window, scale,
                       kv_->Keys(layer), kv_->Values(layer), queries, threads_);
    kernels::MatMul(weights.o, heads_.as<float>(), h_.as<float>(), n, threads_,
                    weights.o_bias.as<float>());
    kernels::AddTo(h_.as<float>(), x, n * config_.d_model);
    return absl::OkStatus();
  }

  absl::Status Logits(const float* x, absl::Span<const int32_t> rows, float* logits) override {
    Reserve(rows.size());
    const int64_t d_model = config_.d_model, n = static_cast<int64_t>(rows.size());
    for (int64_t i = 0; i < n; ++i) {
      kernels::RmsNorm(x + rows[i] * d_model, model_->final_norm(),
                       static_cast<float>(config_.norm_eps), h_.as<float>() + i * d_model, 1,
                       d_model);
    }
    kernels::MatMul(model_->lm_head(), h_.as<float>(), logits, n, threads_);
    return absl::OkStatus();
  }

 private:
  // Positions of q and k are turned, keys and values kept.
  void RotateAndAppend(int layer, absl::Span<const AttentionRow> rows) {
    const int width = config_.q_width() + 2 * config_.kv_width();
    float* const qkv = qkv_.as<float>();
    const auto rotate = [&](int64_t begin, int64_t end) {
      for (int64_t i = begin; i < end; ++i) {
        const int position = rows[i].position;
        float* q = qkv + i * width;
        float* k = q + config_.q_width();
        const float* cos = model_->rope().cos(position);
        const float* sin = model_->rope().sin(position);
        kernels::Rope(q, config_.n_heads, config_.head_dim, cos, sin);
        kernels::Rope(k, config_.n_kv_heads, config_.head_dim, cos, sin);
        kernels::AppendKv(kv_->shape().layout, k, k + config_.kv_width(), position,
                          rows[i].block_table, kv_->Keys(layer), kv_->Values(layer));
      }
    };
    const int64_t n = static_cast<int64_t>(rows.size());
    // Whole blocks per thread: neighbours write to the same cache lines of the keys.
    ParallelFor(n >= 64 ? threads_ : nullptr, n, 32, rotate);
  }

  void Reserve(size_t n_rows) {
    if (n_rows <= capacity_rows_) return;
    h_ = Buffer(n_rows * config_.d_model * sizeof(float));
    qkv_ = Buffer(n_rows * (config_.q_width() + 2 * config_.kv_width()) * sizeof(float));
    heads_ = Buffer(n_rows * config_.q_width() * sizeof(float));
    capacity_rows_ = n_rows;
  }

  const ModelWeights* const weights_;
  const ModelConfig& config_;
  ThreadPool* const threads_;
  std::unique_ptr<KvStorage> kv_;
  std::unique_ptr<AttentionModel> model_;
  size_t capacity_rows_ = 0;
  Buffer h_;      // [rows, d_model] normalised, then projected
  Buffer qkv_;    // [rows, (n_heads + 2 n_kv_heads) * head_dim]
  Buffer heads_;  // [rows, n_heads * head_dim] attention's output
};

}  // namespace

std::unique_ptr<AttentionBackend> MakeCpuAttentionBackend(const ModelWeights* weights,
                                                          ThreadPool* threads) {
  return std::make_unique<CpuAttentionBackend>(weights, threads);
}

}  // namespace gatefold
