#include "gatefold/cuda/alignment.h"
#include "gatefold/cuda/launch.h"
#include "gatefold/cuda/rounded.cuh"
#include "gatefold/cuda/rows.h"
#include "gatefold/cuda/tiles.h"
#include "gatefold/cuda/warp_ops.h"

namespace gatefold::cuda {
namespace {

constexpr int kNormThreads = 256;
constexpr int kRowThreads = 256;

__device__ __forceinline__ float4 Add(const float4& a, const float4& b) {
  return make_float4(__fadd_rn(a.x, b.x), __fadd_rn(a.y, b.y), __fadd_rn(a.z, b.z),
                     __fadd_rn(a.w, b.w));
}

__device__ __forceinline__ float4 Multiply(const float4& a, const float4& b) {
  return make_float4(__fmul_rn(a.x, b.x), __fmul_rn(a.y, b.y), __fmul_rn(a.z, b.z),
                     __fmul_rn(a.w, b.w));
}

__device__ __forceinline__ float AddSquares(float sum, const float4& a) {
  sum = __fmaf_rn(a.x, a.x, sum);
  sum = __fmaf_rn(a.y, a.y, sum);
  sum = __fmaf_rn(a.z, a.z, sum);
  return __fmaf_rn(a.w, a.w, sum);
}

// The sum over the block, to all its threads: within warps by halves, then warps in order.
__device__ __forceinline__ float BlockSum(float value) {
  __shared__ float sums[kNormThreads / kWarp];
#pragma unroll
  for (int step = kWarp / 2; step > 0; step /= 2) {
    value = __fadd_rn(value, __shfl_xor_sync(kAllLanes, value, step));
  }
  if (threadIdx.x % kWarp == 0) sums[threadIdx.x / kWarp] = value;
  __syncthreads();
  value = sums[0];
#pragma unroll
  for (int i = 1; i < kNormThreads / kWarp; ++i) value = __fadd_rn(value, sums[i]);
  return value;
}

// 1 / sqrt(mean(x^2) + eps), given a thread's own squares, to all threads of the block.
__device__ __forceinline__ float ScaleOf(float squares, int d, float eps) {
  const float mean = __fdiv_rn(BlockSum(squares), static_cast<float>(d));
  return __fdiv_rn(1.0f, __fsqrt_rn(__fadd_rn(mean, eps)));
}

struct ActivationsArgs {
  const float* x;
  const float* weight;
  float eps;
  char* activations;
  int n_rows;
  int d;
};

// A block per row, padding rows included. Weights are read while the kernel before still runs; a thread keeps
// what it has of them and of the row, or of wider rows the first part, and reads the rest again.
__global__ void __launch_bounds__(kNormThreads)
    NormActivationsKernel(const __grid_constant__ ActivationsArgs args) {
  LetNextKernelStart();
  constexpr int kHeld = 4, kStep = kNormThreads * 4;
  const int64_t row = blockIdx.x, n_rounded = gridDim.x;
  const int first = static_cast<int>(threadIdx.x) * 4;
  const auto read = [&](const float* from, int i) {
    return i < args.d ? *reinterpret_cast<const float4*>(from + i) : make_float4(0.0f, 0.0f, 0.0f, 0.0f);
  };
  float4 w[kHeld], x[kHeld] = {};
#pragma unroll
  for (int k = 0; k < kHeld; ++k) w[k] = read(args.weight, first + k * kStep);
  AwaitKernelBefore();
  const float* const from = args.x + row * args.d;
  const bool valid = row < args.n_rows;
  float scale = 0.0f;
  if (valid) {  // all threads of the block, or none
    float sum = 0.0f;
#pragma unroll
    for (int k = 0; k < kHeld; ++k) x[k] = read(from, first + k * kStep);
#pragma unroll
    for (int k = 0; k < kHeld; ++k) sum = AddSquares(sum, x[k]);
    for (int i = first + kHeld * kStep; i < args.d; i += kStep) sum = AddSquares(sum, read(from, i));
    scale = ScaleOf(sum, args.d, args.eps);
  }
  const auto store = [&](int i, const float4& values, const float4& weights) {
    const float4 y = Multiply(Multiply(values, make_float4(scale, scale, scale, scale)), weights);
    const bool is_zero = !valid || i >= args.d;
    *reinterpret_cast<uint2*>(args.activations + ActivationOffset(row, i, n_rounded)) =
        is_zero ? make_uint2(0, 0) : make_uint2(PackBF16(y.x, y.y), PackBF16(y.z, y.w));
  };
  const int end = static_cast<int>(RoundUp(args.d, kInputsAlign));
#pragma unroll
  for (int k = 0; k < kHeld; ++k) {
    if (first + k * kStep < end) store(first + k * kStep, x[k], w[k]);
  }
  for (int i = first + kHeld * kStep; i < end; i += kStep) {
    store(i, valid ? read(from, i) : make_float4(0.0f, 0.0f, 0.0f, 0.0f), read(args.weight, i));
  }
}

struct AddArgs {
  float* x;
  const float* added;
  int64_t n;
};

__global__ void __launch_bounds__(kRowThreads) AddKernel(const __grid_constant__ AddArgs args) {
  BeginOverlapping();
  const int64_t i = (static_cast<int64_t>(blockIdx.x) * kRowThreads + threadIdx.x) * 4;
  if (i >= args.n) return;
  auto* x = reinterpret_cast<float4*>(args.x + i);
  *x = Add(*x, *reinterpret_cast<const float4*>(args.added + i));
}

struct EmbedArgs {
  const __nv_bfloat16* table;
  int64_t vocab_size;
  const int32_t* token_ids;
  float* x;
  int d;
};

__device__ __forceinline__ float4 Widen(const uint2& halves) {
  return make_float4(__uint_as_float(halves.x << 16), __uint_as_float(halves.x & 0xffff0000u),
                     __uint_as_float(halves.y << 16), __uint_as_float(halves.y & 0xffff0000u));
}

__global__ void __launch_bounds__(kRowThreads) EmbedKernel(const __grid_constant__ EmbedArgs args) {
  BeginOverlapping();
  const int64_t token = args.token_ids[blockIdx.x];
  const bool known = token >= 0 && token < args.vocab_size;
  const __nv_bfloat16* from = args.table + (known ? token * args.d : 0);
  float* to = args.x + static_cast<int64_t>(blockIdx.x) * args.d;
  for (int i = static_cast<int>(threadIdx.x) * 4; i < args.d; i += kRowThreads * 4) {
    uint2 halves = make_uint2(0xffffffffu, 0xffffffffu);
    if (known) halves = *reinterpret_cast<const uint2*>(from + i);
    *reinterpret_cast<float4*>(to + i) = Widen(halves);
  }
}

struct RoundArgs {
  float* x;
  int64_t n;
};

__global__ void __launch_bounds__(kRowThreads) RoundKernel(const __grid_constant__ RoundArgs args) {
  BeginOverlapping();
  const int64_t i = (static_cast<int64_t>(blockIdx.x) * kRowThreads + threadIdx.x) * 4;
  if (i >= args.n) return;
  float4* const x = reinterpret_cast<float4*>(args.x + i);
  *x = Rounded(*x);
}

struct GatherArgs {
  const float* x;
  const int32_t* rows;
  float* y;
  int d;
};

__global__ void __launch_bounds__(kRowThreads)
    GatherRowsKernel(const __grid_constant__ GatherArgs args) {
  BeginOverlapping();
  const float* const from = args.x + int64_t{args.rows[blockIdx.x]} * args.d;
  float* const to = args.y + static_cast<int64_t>(blockIdx.x) * args.d;
  for (int i = static_cast<int>(threadIdx.x) * 4; i < args.d; i += kRowThreads * 4) {
    *reinterpret_cast<float4*>(to + i) = *reinterpret_cast<const float4*>(from + i);
  }
}

bool IsWidth(int64_t d) { return d > 0 && d % 8 == 0 && d <= INT32_MAX / 8; }

}  // namespace

cudaError_t RmsNormActivations(const float* x, const float* weight, float eps, void* activations,
                               int64_t n_rows, int64_t d, cudaStream_t stream) {
  if (n_rows < 0 || n_rows > INT32_MAX - kRowsAlign || !IsWidth(d) || !IsAligned(x) ||
      !IsAligned(weight) || !IsAligned(activations)) {
    return cudaErrorInvalidValue;
  }
  return LaunchKernel(NormActivationsKernel,
                      {.n_blocks = RoundUp(n_rows, kRowsAlign),
                       .n_threads = kNormThreads,
                       .overlaps = kMayOverlap},
                      stream,
                      ActivationsArgs{.x = x,
                                      .weight = weight,
                                      .eps = eps,
                                      .activations = static_cast<char*>(activations),
                                      .n_rows = static_cast<int>(n_rows),
                                      .d = static_cast<int>(d)});
}

cudaError_t AddRows(float* x, const float* added, int64_t n_rows, int64_t d, cudaStream_t stream) {
  if (n_rows < 0 || !IsWidth(d) || !IsAligned(x) || !IsAligned(added)) return cudaErrorInvalidValue;
  constexpr int64_t kEach = kRowThreads * 4;
  return LaunchKernel(AddKernel,
                      {.n_blocks = (n_rows * d + kEach - 1) / kEach,
                       .n_threads = kRowThreads,
                       .overlaps = kMayOverlap},
                      stream, AddArgs{.x = x, .added = added, .n = n_rows * d});
}

cudaError_t Embed(const __nv_bfloat16* table, int64_t vocab_size, const int32_t* token_ids,
                  float* x, int64_t n_rows, int64_t d, cudaStream_t stream) {
  if (n_rows < 0 || vocab_size <= 0 || !IsWidth(d) || !IsAligned(table) || token_ids == nullptr ||
      !IsAligned(x)) {
    return cudaErrorInvalidValue;
  }
  return LaunchKernel(EmbedKernel, {.n_blocks = n_rows, .n_threads = kRowThreads, .overlaps = kMayOverlap},
                      stream,
                      EmbedArgs{.table = table,
                                .vocab_size = vocab_size,
                                .token_ids = token_ids,
                                .x = x,
                                .d = static_cast<int>(d)});
}

cudaError_t RoundRows(float* x, int64_t n_rows, int64_t d, cudaStream_t stream) {
  if (n_rows < 0 || !IsWidth(d) || !IsAligned(x)) return cudaErrorInvalidValue;
  constexpr int64_t kEach = kRowThreads * 4;
  return LaunchKernel(RoundKernel,
                      {.n_blocks = (n_rows * d + kEach - 1) / kEach,
                       .n_threads = kRowThreads,
                       .overlaps = kMayOverlap},
                      stream, RoundArgs{.x = x, .n = n_rows * d});
}

cudaError_t GatherRows(const float* x, const int32_t* rows, float* y, int64_t n_rows, int64_t d,
                       cudaStream_t stream) {
  if (n_rows < 0 || !IsWidth(d) || !IsAligned(x) || rows == nullptr || !IsAligned(y)) {
    return cudaErrorInvalidValue;
  }
  return LaunchKernel(GatherRowsKernel, {.n_blocks = n_rows, .n_threads = kRowThreads, .overlaps = kMayOverlap},
                      stream, GatherArgs{.x = x, .rows = rows, .y = y, .d = static_cast<int>(d)});
}

}  // namespace gatefold::cuda
