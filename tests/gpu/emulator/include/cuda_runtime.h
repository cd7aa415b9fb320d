#pragma once

// What kernels use of CUDA's language, for the emulator: names and meanings are CUDA's.

#include <algorithm>
#include <bit>
#include <cmath>
#include <cstdint>
#include <cstring>

#include "cuda_runtime_api.h"
#include "tests/gpu/emulator/emulator.h"

#define __global__
#define __device__
#define __host__
#define __forceinline__ inline
#define __grid_constant__
#define __launch_bounds__(...)
#define __cluster_dims__(...)
#define __align__(n)
#define __shared__ static  // one block runs at a time, but for what goes before its wait (emulator.h)

#define threadIdx (gatefold::cuda::emulator::ThreadIndex())
#define blockIdx (gatefold::cuda::emulator::BlockIndex())
#define blockDim (gatefold::cuda::emulator::BlockSize())
#define gridDim (gatefold::cuda::emulator::GridSize())

struct alignas(8) float2 {
  float x, y;
};
struct alignas(16) float4 {
  float x, y, z, w;
};
struct alignas(16) int4 {
  int x, y, z, w;
};
struct alignas(8) uint2 {
  unsigned x, y;
};
struct alignas(16) uint4 {
  unsigned x, y, z, w;
};
inline float2 make_float2(float x, float y) { return {x, y}; }
inline float4 make_float4(float x, float y, float z, float w) { return {x, y, z, w}; }
inline uint2 make_uint2(unsigned x, unsigned y) { return {x, y}; }
inline uint4 make_uint4(unsigned x, unsigned y, unsigned z, unsigned w) { return {x, y, z, w}; }

using std::isfinite;
using std::max;
using std::min;

inline float __fadd_rn(float a, float b) { return a + b; }
inline float __fsub_rn(float a, float b) { return a - b; }
inline float __fmul_rn(float a, float b) { return a * b; }
inline float __fdiv_rn(float a, float b) { return a / b; }
inline float __frcp_rn(float a) { return 1.0f / a; }
inline float __fsqrt_rn(float a) { return std::sqrt(a); }
// A product of two float32 is a float64, but the sum rounds twice: hence the library's.
inline float __fmaf_rn(float a, float b, float c) { return std::fma(a, b, c); }
inline float __fdividef(float a, float b) { return a / b; }
inline float __expf(float x) { return std::exp(x); }
inline unsigned __float_as_uint(float x) { return std::bit_cast<unsigned>(x); }
inline float __uint_as_float(unsigned x) { return std::bit_cast<float>(x); }
inline unsigned long long __float2ull_rn(float x) {
  return x > 0 ? static_cast<unsigned long long>(std::nearbyint(x)) : 0;
}
inline uint64_t __umul64hi(uint64_t a, uint64_t b) {
  __extension__ using Wide = unsigned __int128;
  return static_cast<uint64_t>(static_cast<Wide>(a) * b >> 64);
}
inline int __popc(unsigned x) { return std::popcount(x); }
inline int __ffs(int x) { return x == 0 ? 0 : std::countr_zero(static_cast<unsigned>(x)) + 1; }
inline unsigned __byte_perm(unsigned x, unsigned y, unsigned selector) {
  const uint64_t both = static_cast<uint64_t>(y) << 32 | x;
  unsigned to = 0;
  for (int i = 0; i < 4; ++i) {
    to |= static_cast<unsigned>(both >> (8 * (selector >> (4 * i) & 7)) & 255) << (8 * i);
  }
  return to;
}

template <typename T>
T __ldg(const T* from) {
  return *from;
}
template <typename T>
T __ldcg(const T* from) {
  return *from;
}
inline int atomicAdd(int* to, int x) {
  const int before = *to;
  *to += x;
  return before;
}
inline unsigned atomicOr(unsigned* to, unsigned x) {
  const unsigned before = *to;
  *to |= x;
  return before;
}
inline void __threadfence() {}

inline void __syncthreads() { gatefold::cuda::emulator::MeetBlock(0, 0, false); }
inline int __syncthreads_count(int is) {
  return gatefold::cuda::emulator::MeetBlock(0, 0, is != 0);
}
inline void __syncwarp() {
  gatefold::cuda::emulator::MeetWarp("__syncwarp", nullptr, [](void* const*) {});
}

namespace gatefold::cuda::emulator {

// Every lane's value is known; from(lane) says whose a lane gets.
template <typename T, typename From>
T Shuffle(const char* what, T value, From&& from) {
  struct Lane {
    T in, out;
    int from;
  } mine = {value, value, 0};
  mine.from = from(static_cast<int>(place->thread.x % kWarpThreads));
  MeetWarp(what, &mine, [](void* const* all) {
    for (int i = 0; i < kWarpThreads; ++i) {
      Lane* lane = static_cast<Lane*>(all[i]);
      lane->out = static_cast<Lane*>(all[lane->from])->in;
    }
  });
  return mine.out;
}

template <typename T, typename Combine>
T Reduce(const char* what, T value, Combine&& combine) {
  MeetWarp(what, &value, [&](void* const* all) {
    T sum = *static_cast<T*>(all[0]);
    for (int i = 1; i < kWarpThreads; ++i) sum = combine(sum, *static_cast<T*>(all[i]));
    for (int i = 0; i < kWarpThreads; ++i) *static_cast<T*>(all[i]) = sum;
  });
  return value;
}

inline void AllLanes(unsigned mask) {
  if (mask != 0xffffffffu) Fail("a warp's operation without all of its lanes");
}

}  // namespace gatefold::cuda::emulator

template <typename T>
T __shfl_sync(unsigned mask, T value, int lane) {
  gatefold::cuda::emulator::AllLanes(mask);
  return gatefold::cuda::emulator::Shuffle("__shfl_sync", value, [&](int) { return lane & 31; });
}
template <typename T>
T __shfl_xor_sync(unsigned mask, T value, int bits) {
  gatefold::cuda::emulator::AllLanes(mask);
  return gatefold::cuda::emulator::Shuffle("__shfl_xor_sync", value,
                                           [&](int lane) { return lane ^ bits; });
}
template <typename T>
T __shfl_up_sync(unsigned mask, T value, unsigned by) {
  gatefold::cuda::emulator::AllLanes(mask);
  return gatefold::cuda::emulator::Shuffle("__shfl_up_sync", value, [&](int lane) {
    return lane >= static_cast<int>(by) ? lane - static_cast<int>(by) : lane;
  });
}
inline int __reduce_max_sync(unsigned mask, int value) {
  gatefold::cuda::emulator::AllLanes(mask);
  return gatefold::cuda::emulator::Reduce("__reduce_max_sync", value,
                                          [](int a, int b) { return std::max(a, b); });
}
inline int __reduce_min_sync(unsigned mask, int value) {
  gatefold::cuda::emulator::AllLanes(mask);
  return gatefold::cuda::emulator::Reduce("__reduce_min_sync", value,
                                          [](int a, int b) { return std::min(a, b); });
}
inline unsigned __ballot_sync(unsigned mask, bool is) {
  gatefold::cuda::emulator::AllLanes(mask);
  return gatefold::cuda::emulator::Reduce("__ballot_sync", is ? 1u << (threadIdx.x % 32) : 0u,
                                          [](unsigned a, unsigned b) { return a | b; });
}
