#pragma once

#include <cuda_bf16.h>
#include <cuda_runtime_api.h>

#include <span>

#include "gatefold/cuda/attention_step.h"
#include "gatefold/cuda/attention_weights.h"
#include "gatefold/cuda/device_memory.h"

namespace gatefold::cuda {

// Everything of a model's step that is attention's, on the device: embedding, attention of each
// layer with its paged KV cache, logits. The device's side of attention-service/attention_runner.h.
//
// Per layer six launches (norm, qkv, rotate and keep, attend, o, add), and another of attend where prefill
// and decode come together. The host waits for none: x stays on the device between them. What is rounded: rows
// become bfloat16 before each product, q, k and v when they are kept; sums and x are float32.
//
// The row law: every launch gives a row the same bits whatever rows are beside it.
//
// Owns the KV cache and the memory that one operation works in, which grows as batches do.
// Threads: one operation at a time, all on one stream. Errors: cudaErrorInvalidValue before
// anything is enqueued, cudaErrorMemoryAllocation, or what a launch returned. Nothing waits for the
// device, except where memory grows.
class AttentionStack {
 public:
  static constexpr int kMaxLogitRows = 32;  // of a call: a vocabulary is wide

  // The weights outlive the stack.
  AttentionStack(const AttentionWeights* weights, int n_kv_blocks)
      : weights_(weights), n_kv_blocks_(n_kv_blocks) {}
  AttentionStack(const AttentionStack&) = delete;
  AttentionStack& operator=(const AttentionStack&) = delete;

  // Allocates the KV cache, when the weights are in place. Before everything else, once.
  cudaError_t Prepare();

  // See AttentionStep::Upload. Block ids are within [0, n_kv_blocks).
  cudaError_t Upload(std::span<const SequenceRows> sequences, const int32_t* token_ids,
                     AttentionStep* step, cudaStream_t stream) const;

  // x: device, float32 [n_rows, d_model], out. The step has token ids. Layer 0 is attended.
  cudaError_t EmbedAndAttend(const AttentionStep& step, float* x, cudaStream_t stream);
  // x: device, float32 [n_rows, d_model], in and out.
  cudaError_t Attend(int layer, const AttentionStep& step, float* x, cudaStream_t stream);
  // x: device, float32 [n_rows, d_model], of 1 to kMaxLogitRows rows. logits: device, float32
  // [n_rows, vocab_size].
  cudaError_t Logits(const float* x, int n_rows, float* logits, cudaStream_t stream);

  // Memory for calls of so many rows and slots of their plans. They do it where it was not done.
  cudaError_t Reserve(int n_rows, int64_t n_slots);

  // Of one layer; see KvCacheLayout.
  __nv_bfloat16* kv(int layer) const {
    return reinterpret_cast<__nv_bfloat16*>(kv_.get()) +
           int64_t{layer} * n_kv_blocks_ * weights_->shape().BlockElements();
  }

 private:
  struct Workspace {
    char* activations = nullptr;  // of the products' inputs
    float* products = nullptr;    // [rows, qkv_width], then [rows, d_model]
    __nv_bfloat16* q = nullptr;   // [rows, n_heads, head_dim]
  };

  // y [n_rows, shape.n_out] = W x + bias, with the weights of a group of `n_rows` rows on the
  // device.
  cudaError_t Product(const TileShape& shape, const MatMulGroup* group, int n_rows, const void* x,
                      float* y, cudaStream_t stream) const;

  const AttentionWeights* const weights_;
  const int n_kv_blocks_;
  PlanLimits limits_;
  DeviceMemory kv_;            // [n_layers, n_kv_blocks, keys and values]
  DeviceMemory logit_groups_;  // of 1 to kMaxLogitRows rows
  DeviceMemory turns_;         // of products
  DeviceMemory rows_memory_;
  DeviceMemory parts_;  // of attention
  int capacity_rows_ = 0;
  Workspace work_;
};

}  // namespace gatefold::cuda
