#pragma once

#include <cuda_bf16.h>
#include <cuda_runtime.h>

namespace gatefold::cuda {

// To the nearest bfloat16, ties to even, kept as float32.
__device__ __forceinline__ float Rounded(float x) {
  return __bfloat162float(__float2bfloat16_rn(x));
}
__device__ __forceinline__ float4 Rounded(const float4& a) {
  return make_float4(Rounded(a.x), Rounded(a.y), Rounded(a.z), Rounded(a.w));
}

}  // namespace gatefold::cuda
