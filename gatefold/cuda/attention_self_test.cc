#include "gatefold/cuda/attention_self_test.h"

#include <cmath>
#include <numeric>

#include "gatefold/cuda/attention_stack.h"
#include "gatefold/cuda/cuda_macros.h"
#include "gatefold/cuda/sampling.h"
#include "gatefold/cuda/self_test_numbers.h"

namespace gatefold::cuda {
namespace {

constexpr int kPrompt = kChunkTokens + 88;
constexpr AttentionModelShape kShape = {.n_layers = 1,
                                        .vocab_size = 100,
                                        .d_model = 200,
                                        .norm_eps = 1e-5f,
                                        .attention = {4, 2, 128, 0, 0.1f},
                                        .max_positions = kPrompt + 1};

// A matrix of fixed numbers, to the end of the upload.
class FixedMatrix {
 public:
  FixedMatrix(const TileShape& shape, uint32_t seed)
      : shape_(shape), halves_(HalfNumbers(shape.n_out * shape.n_in, seed)) {}
  HostMatrix view() const { return {halves_.data(), shape_.n_out, shape_.n_in, shape_.n_in}; }

 private:
  const TileShape shape_;
  const std::vector<uint16_t> halves_;
};

cudaError_t Load(AttentionWeights* weights) {
  const int64_t d = kShape.d_model;
  const FixedMatrix embedding({kShape.vocab_size, d}, 1), lm_head(kShape.lm_head(), 2),
      q({kShape.q_width(), d}, 3), k({kShape.kv_width(), d}, 4), v({kShape.kv_width(), d}, 5),
      o(kShape.o(), 6);
  const std::vector<float> norm = Numbers(d, 7), qkv_bias = Numbers(kShape.qkv_width(), 8);
  std::vector<float> cos, sin;  // of angles, so that the host's library does not show
  for (float x : Numbers(kShape.max_positions * (kShape.attention.head_dim / 2), 9)) {
    cos.push_back(x);
    sin.push_back(1.0f - std::fabs(x));
  }
  WeightUpload upload;
  GF_CUDA_RETURN_IF_ERROR(upload.Prepare());
  GF_CUDA_RETURN_IF_ERROR(weights->LoadEmbedding(embedding.view(), &upload));
  GF_CUDA_RETURN_IF_ERROR(weights->LoadLayer(0,
                                             {.norm = norm.data(),
                                              .q = q.view(),
                                              .k = k.view(),
                                              .v = v.view(),
                                              .o = o.view(),
                                              .qkv_bias = qkv_bias.data()},
                                             &upload));
  GF_CUDA_RETURN_IF_ERROR(weights->LoadHead(norm.data(), lm_head.view(), &upload));
  GF_CUDA_RETURN_IF_ERROR(weights->LoadRope(cos.data(), sin.data(), &upload));
  return upload.Finish();
}

// Tokens of one row of logits, drawn with several seeds. They show which sampler it is more than
// how it rounds: what is inexact there, powers of two, attention has as well.
cudaError_t DrawTokens(const float* logits, std::vector<float>* answers) {
  constexpr int kSeeds = 32;
  std::vector<SampleRow> rows;
  for (int i = 0; i < kSeeds; ++i) {
    rows.push_back({.seed = static_cast<uint64_t>(i),
                    .position = 7 * i,
                    .temperature = 2.0f,
                    .top_k = i % 2 * 50,
                    .top_p = i % 3 == 0 ? 0.9f : 1.0f});
  }
  DeviceMemory rows_memory, drawn_memory;
  GF_CUDA_RETURN_IF_ERROR(rows_memory.Reserve(sizeof(SampleRow)));
  GF_CUDA_RETURN_IF_ERROR(drawn_memory.Reserve(sizeof(DrawnToken)));
  for (const SampleRow& row : rows) {
    DrawnToken drawn;
    GF_CUDA_RETURN_IF_ERROR(
        cudaMemcpy(rows_memory.get(), &row, sizeof(row), cudaMemcpyHostToDevice));
    GF_CUDA_RETURN_IF_ERROR(Sample(logits, 1, kShape.vocab_size,
                                   reinterpret_cast<const SampleRow*>(rows_memory.get()),
                                   reinterpret_cast<DrawnToken*>(drawn_memory.get()), nullptr));
    GF_CUDA_RETURN_IF_ERROR(
        cudaMemcpy(&drawn, drawn_memory.get(), sizeof(drawn), cudaMemcpyDeviceToHost));
    answers->push_back(static_cast<float>(drawn.token));
  }
  return cudaSuccess;
}

}  // namespace

cudaError_t AttentionSelfTest(std::vector<float>* answers) {
  AttentionWeights weights(kShape);
  GF_CUDA_RETURN_IF_ERROR(Load(&weights));
  constexpr int kBlocks = kPrompt / KvCacheLayout::kBlockTokens + 1;
  AttentionStack stack(&weights, kBlocks);
  GF_CUDA_RETURN_IF_ERROR(stack.Prepare());
  std::vector<int32_t> table(kBlocks), tokens(kPrompt);
  std::iota(table.begin(), table.end(), 0);
  for (int p = 0; p < kPrompt; ++p) tokens[p] = p * 7 % kShape.vocab_size;

  const int64_t d = kShape.d_model, vocab = kShape.vocab_size;
  DeviceMemory rows, logits;
  GF_CUDA_RETURN_IF_ERROR(rows.Reserve(kPrompt * d * sizeof(float)));
  GF_CUDA_RETURN_IF_ERROR(logits.Reserve(vocab * sizeof(float)));
  auto* const x = reinterpret_cast<float*>(rows.get());
  answers->resize((kPrompt + 1) * d + vocab);
  const auto fetch = [&](const DeviceMemory& from, int64_t n, int64_t at) {
    return cudaMemcpy(answers->data() + at, from.get(), n * sizeof(float), cudaMemcpyDeviceToHost);
  };
  AttentionStep step;
  const SequenceRows prefill = {table.data(), 0, kPrompt}, decode = {table.data(), kPrompt, 1};
  GF_CUDA_RETURN_IF_ERROR(stack.Upload({&prefill, 1}, tokens.data(), &step, nullptr));
  GF_CUDA_RETURN_IF_ERROR(stack.EmbedAndAttend(step, x, nullptr));
  GF_CUDA_RETURN_IF_ERROR(fetch(rows, kPrompt * d, 0));
  GF_CUDA_RETURN_IF_ERROR(stack.Upload({&decode, 1}, tokens.data(), &step, nullptr));
  GF_CUDA_RETURN_IF_ERROR(stack.EmbedAndAttend(step, x, nullptr));
  GF_CUDA_RETURN_IF_ERROR(stack.Logits(x, 1, reinterpret_cast<float*>(logits.get()), nullptr));
  GF_CUDA_RETURN_IF_ERROR(fetch(rows, d, kPrompt * d));
  GF_CUDA_RETURN_IF_ERROR(fetch(logits, vocab, (kPrompt + 1) * d));
  return DrawTokens(reinterpret_cast<const float*>(logits.get()), answers);
}

}  // namespace gatefold::cuda
