#pragma once

#include <cuda_bf16.h>
#include <cuda_runtime_api.h>

#include <cstdint>

namespace gatefold::cuda {

// The second half of Attention for rows whose context was split: merges the parts that other
// blocks left in the workspace, in ascending order of chunks, and writes the rows' outputs.
struct CombineArgs {
  const int32_t* rows;       // [n_rows] rows of the batch; -1: nothing
  int n_rows;
  const int32_t* positions;  // of all rows of the batch
  const int32_t* row_slots;  // of all rows of the batch
  int n_heads;
  int window;
  const float* part_values;  // [n_slots, n_heads, head_dim]
  const float2* part_sums;   // [n_slots, n_heads]: m, l
  float* out;                // [.., n_heads, head_dim], or null
  __nv_bfloat16* out_bf16;   // the same, if out is null
};

// Enqueues on `stream`. head_dim: 64 or 128.
cudaError_t CombineParts(int head_dim, const CombineArgs& args, cudaStream_t stream);

}  // namespace gatefold::cuda
