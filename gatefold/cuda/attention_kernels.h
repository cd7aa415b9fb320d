#pragma once

// The kernels behind Attention. Each takes workers of one kind of a plan.

#include <cuda_bf16.h>
#include <cuda_runtime_api.h>

#include <cstdint>

#include "gatefold/cuda/attention_plan.h"

namespace gatefold::cuda {

struct AttentionArgs {
  const AttentionSegment* segments;
  int first_worker;
  const int32_t* positions;
  const int32_t* block_tables;
  int table_stride;
  const int32_t* row_slots;
  int32_t* counters;
  int n_heads;
  int n_kv_heads;
  int group;
  int group_inverse;  // 2^16 / group, rounded up: exact enough to divide any pair of a tile
  int window;
  float scale_log2;  // of the scores, for powers of two
  const __nv_bfloat16* q;
  const __nv_bfloat16* kv;
  float* out;
  char* activations;
  int64_t n_rounded;  // their rows
  float* part_values;  // [n_slots, n_heads, head_dim]
  float2* part_sums;   // [n_slots, n_heads]: m, l
};

// Asynchronous; no workers: nothing, and cudaSuccess. head_dim: 64 or 128.
cudaError_t LaunchNarrow(int head_dim, const AttentionArgs& args, int n_workers,
                         cudaStream_t stream);
cudaError_t LaunchWide(int head_dim, const AttentionArgs& args, int n_workers, cudaStream_t stream);
// Of Hopper. pairs: most (row, query head) pairs of a tile, 8 or 16.
cudaError_t LaunchHopperNarrow(int head_dim, int pairs, const AttentionArgs& args, int n_workers,
                               cudaStream_t stream);
cudaError_t LaunchHopperWide(int head_dim, const AttentionArgs& args, int n_workers,
                             cudaStream_t stream);

}  // namespace gatefold::cuda
