#pragma once

#include <algorithm>
#include <cmath>
#include <memory>
#include <numeric>
#include <random>
#include <utility>
#include <vector>

#include "gatefold/cuda/attention_stack.h"
#include "tests/gpu/gpu_test.h"

namespace gatefold::cuda {

// A bfloat16 matrix on the host, with a gap after each row as a slice of a checkpoint may have.
struct RandomMatrix {
  RandomMatrix(int64_t n_rows, int64_t n_cols, float deviation, uint32_t seed)
      : n_rows(n_rows), n_cols(n_cols) {
    for (float value : RandomFloats(n_rows * stride(), deviation, seed)) {
      bits.push_back(ToBF16(value));
    }
  }
  int64_t stride() const { return n_cols + 3; }
  float at(int64_t row, int64_t col) const { return FromBF16(bits[row * stride() + col]); }
  HostMatrix view() const { return {bits.data(), n_rows, n_cols, stride()}; }
  // W x, of x rounded to bfloat16.
  std::vector<double> Times(const std::vector<double>& x) const {
    std::vector<double> y(n_rows, 0.0);
    for (int64_t c = 0; c < n_cols; ++c) {
      const double rounded = RoundBF16(x[c]);
      for (int64_t r = 0; r < n_rows; ++r) y[r] += at(r, c) * rounded;
    }
    return y;
  }

  int64_t n_rows, n_cols;
  std::vector<uint16_t> bits;
};

// The attention side of a random model, on the host and on the device.
class RandomAttentionModel {
 public:
  struct Layer {
    std::vector<float> norm;
    RandomMatrix q, k, v, o;
    std::vector<float> qkv_bias, o_bias;
  };

  RandomAttentionModel(const AttentionModelShape& shape, bool biases, uint32_t seed)
      : shape(shape),
        embedding(shape.vocab_size, shape.d_model, 1.0f, seed),
        lm_head(shape.vocab_size, shape.d_model, Deviation(shape.d_model), seed + 1),
        final_norm(Norm(seed + 2)),
        device(shape) {
    for (int l = 0; l < shape.n_layers; ++l)
      layers.push_back(MakeLayer(biases, seed + 10 * (l + 1)));
    const int half = shape.attention.head_dim / 2;
    for (int p = 0; p < shape.max_positions; ++p) {
      for (int i = 0; i < half; ++i) {
        const float angle = static_cast<float>(p) * std::pow(1e4f, -static_cast<float>(i) / half);
        cos.push_back(std::cos(angle));
        sin.push_back(std::sin(angle));
      }
    }
    Load();
  }

  const AttentionModelShape shape;
  const RandomMatrix embedding, lm_head;
  const std::vector<float> final_norm;
  std::vector<Layer> layers;
  std::vector<float> cos, sin;  // [max_positions, head_dim / 2]
  AttentionWeights device;

 private:
  static float Deviation(int64_t n_in) { return 1.0f / std::sqrt(static_cast<float>(n_in)); }
  std::vector<float> Norm(uint32_t seed) const {
    std::vector<float> norm = RandomFloats(shape.d_model, 0.2f, seed);
    for (float& weight : norm) weight += 1.0f;
    return norm;
  }
  Layer MakeLayer(bool biases, uint32_t seed) const {
    const float in = Deviation(shape.d_model);
    return {
        .norm = Norm(seed),
        .q = RandomMatrix(shape.q_width(), shape.d_model, 2 * in, seed + 1),
        .k = RandomMatrix(shape.kv_width(), shape.d_model, 2 * in, seed + 2),
        .v = RandomMatrix(shape.kv_width(), shape.d_model, 2 * in, seed + 3),
        .o = RandomMatrix(shape.d_model, shape.q_width(), 3 * Deviation(shape.q_width()), seed + 4),
        .qkv_bias = RandomFloats(biases ? shape.qkv_width() : 0, 0.5f, seed + 5),
        .o_bias = RandomFloats(biases ? shape.d_model : 0, 0.5f, seed + 6)};
  }

  void Load() {
    WeightUpload upload;
    EXPECT_CUDA(upload.Prepare());
    EXPECT_CUDA(device.LoadEmbedding(embedding.view(), &upload));
    for (int l = 0; l < shape.n_layers; ++l) {
      const Layer& layer = layers[l];
      EXPECT_CUDA(
          device.LoadLayer(l,
                           {.norm = layer.norm.data(),
                            .q = layer.q.view(),
                            .k = layer.k.view(),
                            .v = layer.v.view(),
                            .o = layer.o.view(),
                            .qkv_bias = layer.qkv_bias.empty() ? nullptr : layer.qkv_bias.data(),
                            .o_bias = layer.o_bias.empty() ? nullptr : layer.o_bias.data()},
                           &upload));
    }
    EXPECT_CUDA(device.LoadHead(final_norm.data(), lm_head.view(), &upload));
    EXPECT_CUDA(device.LoadRope(cos.data(), sin.data(), &upload));
    EXPECT_CUDA(upload.Finish());
  }
};

// Positions [first, first + n) of a sequence.
struct RowSpan {
  int sequence;
  int first;
  int n;
};

using Sequences = std::vector<std::vector<int32_t>>;  // token ids

// An empty cache with blocks dealt to the sequences in random order.
class AttentionServer {
 public:
  AttentionServer(const RandomAttentionModel& model, const Sequences& sequences, uint64_t seed)
      : model_(model), sequences_(sequences) {
    int n_blocks = 2;  // some that nobody owns
    for (const auto& tokens : sequences) n_blocks += (static_cast<int>(tokens.size()) + 15) / 16;
    std::vector<int32_t> ids(n_blocks);
    std::iota(ids.begin(), ids.end(), 0);
    std::shuffle(ids.begin(), ids.end(), std::mt19937_64(seed));
    auto next = ids.begin();
    for (const auto& tokens : sequences) {
      tables_.emplace_back(next, next + (tokens.size() + 15) / 16);
      next += (tokens.size() + 15) / 16;
    }
    stack_ = std::make_unique<AttentionStack>(&model.device, n_blocks);
    EXPECT_CUDA(stack_->Prepare());
    // NaN, wherever nothing is written.
    EXPECT_CUDA(cudaMemset(stack_->kv(0), 0xFF, model.shape.KvBlockBytes() * n_blocks));
  }

  // All layers of a step, without experts between them. Returns x: [rows, d_model].
  std::vector<float> Step(const std::vector<RowSpan>& spans) { return Start(spans)->Read(); }
  // The same, without a wait for it.
  std::unique_ptr<DeviceArray<float>> Start(const std::vector<RowSpan>& spans) {
    std::vector<SequenceRows> rows;
    std::vector<int32_t> tokens;
    for (const RowSpan& span : spans) {
      rows.push_back({tables_[span.sequence].data(), span.first, span.n});
      const auto begin = sequences_[span.sequence].begin() + span.first;
      tokens.insert(tokens.end(), begin, begin + span.n);
    }
    EXPECT_CUDA(stack_->Upload(rows, tokens.data(), &step_, nullptr));
    auto x = std::make_unique<DeviceArray<float>>(tokens.size() * model_.shape.d_model);
    EXPECT_CUDA(stack_->EmbedAndAttend(step_, x->get(), nullptr));
    for (int l = 1; l < model_.shape.n_layers; ++l) {
      EXPECT_CUDA(stack_->Attend(l, step_, x->get(), nullptr));
    }
    return x;
  }

  // x: [n_rows, d_model]. Returns [n_rows, vocab_size].
  std::vector<float> Logits(const std::vector<float>& x) {
    const DeviceArray<float> rows(x);
    const int n = static_cast<int>(x.size() / model_.shape.d_model);
    DeviceArray<float> logits(n * model_.shape.vocab_size);
    EXPECT_CUDA(stack_->Logits(rows.get(), n, logits.get(), nullptr));
    return logits.Read();
  }

  AttentionStack& stack() { return *stack_; }

 private:
  const RandomAttentionModel& model_;
  const Sequences sequences_;
  std::vector<std::vector<int32_t>> tables_;
  std::unique_ptr<AttentionStack> stack_;
  AttentionStep step_;
};

}  // namespace gatefold::cuda
