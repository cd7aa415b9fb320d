#pragma once

#include "gatefold/cuda/warp_ops.h"

namespace gatefold::cuda {

// The sum over a block of kThreads, to all its threads, of integers: the order of adding does not matter.
template <int kThreads, typename T>
__device__ __forceinline__ T BlockSum(T value) {
  constexpr int kWarps = kThreads / kWarp;
  __shared__ T sums[kWarps];
#pragma unroll
  for (int step = kWarp / 2; step > 0; step /= 2) value += __shfl_xor_sync(kAllLanes, value, step);
  __syncthreads();  // the sums before these have been read
  if (threadIdx.x % kWarp == 0) sums[threadIdx.x / kWarp] = value;
  __syncthreads();
  value = 0;
#pragma unroll
  for (int i = 0; i < kWarps; ++i) value += sums[i];
  return value;
}

}  // namespace gatefold::cuda
