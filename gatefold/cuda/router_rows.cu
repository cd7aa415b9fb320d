#include "gatefold/cuda/router_rows.h"

#include <atomic>
#include <cfloat>

#include "gatefold/cuda/alignment.h"
#include "gatefold/cuda/cuda_macros.h"
#include "gatefold/cuda/launch.h"
#include "gatefold/cuda/rounded.cuh"
#include "gatefold/cuda/tiles.h"
#include "gatefold/cuda/warp_ops.h"

namespace gatefold::cuda {
namespace {

constexpr int kThreads = 256;

int64_t Blocks(int64_t n, int64_t each) { return (n + each - 1) / each; }
constexpr int kLanes = 16;  // of the virtual vector: half a warp

// The virtual vector's sum, in its order, to all of its lanes.
__device__ __forceinline__ float SumLanes(float value) {
#pragma unroll
  for (int step = kLanes / 2; step > 0; step /= 2) {
    value = __fadd_rn(value, __shfl_xor_sync(kAllLanes, value, step));
  }
  return value;
}

// Exp of gatefold/kernels/vector_kernels.h, operation for operation; no NaN comes here.
__device__ __forceinline__ float VirtualExp(float x) {
  x = x > -87.3f ? x : -87.3f;
  x = x < 88.3f ? x : 88.3f;
  const float magic = 12582912.0f;
  const float t = __fmaf_rn(x, 1.44269504f, magic);
  const float n = __fsub_rn(t, magic);
  float r = __fmaf_rn(n, -0.693359375f, x);
  r = __fmaf_rn(n, 2.12194440e-4f, r);
  float p = 1.0f / 5040;
  p = __fmaf_rn(p, r, 1.0f / 720);
  p = __fmaf_rn(p, r, 1.0f / 120);
  p = __fmaf_rn(p, r, 1.0f / 24);
  p = __fmaf_rn(p, r, 1.0f / 6);
  p = __fmaf_rn(p, r, 0.5f);
  p = __fmaf_rn(p, r, 1.0f);
  p = __fmaf_rn(p, r, 1.0f);
  return __fmul_rn(p, __uint_as_float((__float_as_uint(t) << 23) + (127u << 23)));
}

struct NormArgs {
  const float* x;
  const float* weight;
  float eps;
  float* h;
  int d;
};

// A block per row. The sum is one chain of d / 16 per lane: so the row is brought into shared memory by
// all threads first, where the next number is near. Weights are read while the kernel before still runs.
__global__ void __launch_bounds__(kThreads) NormKernel(const __grid_constant__ NormArgs args) {
  LetNextKernelStart();
  GATEFOLD_DYNAMIC_SHARED(float4, staged4);
  __shared__ float scale;
  float* const staged = reinterpret_cast<float*>(staged4);
  const int64_t row = static_cast<int64_t>(blockIdx.x) * args.d;
  const int first = static_cast<int>(threadIdx.x) * 4;
  constexpr int kHeld = 4;  // of a thread, by fours; of wider rows the rest is read later
  float4 weights[kHeld];
#pragma unroll
  for (int k = 0; k < kHeld; ++k) {
    const int i = first + k * kThreads * 4;
    if (i < args.d) weights[k] = *reinterpret_cast<const float4*>(args.weight + i);
  }
  AwaitKernelBefore();
  for (int i = first; i < args.d; i += kThreads * 4) {
    staged4[i / 4] = *reinterpret_cast<const float4*>(args.x + row + i);
  }
  __syncthreads();
  if (threadIdx.x < kWarp) {  // both halves do the same
    float sum = 0.0f;
#pragma unroll 16
    for (int i = static_cast<int>(threadIdx.x) % kLanes; i < args.d; i += kLanes) {
      sum = __fmaf_rn(staged[i], staged[i], sum);
    }
    const float mean = __fdiv_rn(SumLanes(sum), static_cast<float>(args.d));
    if (threadIdx.x == 0) scale = __fdiv_rn(1.0f, __fsqrt_rn(__fadd_rn(mean, args.eps)));
  }
  __syncthreads();
  const auto store = [&](int i, const float4& w) {
    const float4 x = staged4[i / 4];
    *reinterpret_cast<float4*>(args.h + row + i) =
        make_float4(__fmul_rn(__fmul_rn(x.x, scale), w.x), __fmul_rn(__fmul_rn(x.y, scale), w.y),
                    __fmul_rn(__fmul_rn(x.z, scale), w.z), __fmul_rn(__fmul_rn(x.w, scale), w.w));
  };
#pragma unroll
  for (int k = 0; k < kHeld; ++k) {
    const int i = first + k * kThreads * 4;
    if (i < args.d) store(i, weights[k]);
  }
  for (int i = first + kHeld * kThreads * 4; i < args.d; i += kThreads * 4) {
    store(i, *reinterpret_cast<const float4*>(args.weight + i));
  }
}

struct LogitsArgs {
  const float* h;
  const float* gate;
  float* logits;
  int64_t n_rows;
  int d;
  int n_experts;
};

constexpr int kLine = 2 * kLanes;  // inputs that the virtual vector takes at a time

// Few rows: a block has one and one expert. What counts is that all of both are under way at once, so they
// are brought into shared memory by all threads, and half a warp, the virtual vector, adds up there. Weights
// come while the kernel before still runs.
__global__ void __launch_bounds__(kThreads) FewLogitsKernel(const __grid_constant__ LogitsArgs args) {
  LetNextKernelStart();
  GATEFOLD_DYNAMIC_SHARED(float4, staged4);  // the row, the expert's weights, whole lines each
  float* const staged = reinterpret_cast<float*>(staged4);
  const int64_t row = blockIdx.x / args.n_experts;
  const int expert = static_cast<int>(blockIdx.x % args.n_experts);
  const int width = static_cast<int>(RoundUp(args.d, kLine));
  const auto start = [&](float* to, const float* from) {
    for (int i = static_cast<int>(threadIdx.x) * 4; i < width; i += kThreads * 4) {
      CopyAsync16(SharedAddress(to + i), from + (i < args.d ? i : 0), i < args.d);
    }
  };
  start(staged + width, args.gate + int64_t{expert} * args.d);
  AwaitKernelBefore();
  start(staged, args.h + row * args.d);
  CommitCopies();
  WaitForCopies<0>();
  __syncthreads();
  if (threadIdx.x >= kWarp) return;  // both halves of the first warp do the same
  const int lane = static_cast<int>(threadIdx.x) % kLanes;
  float sum = 0.0f;
#pragma unroll 8
  for (int at = 2 * lane; at < width; at += kLine) {
    const float2 x = *reinterpret_cast<const float2*>(staged + at);
    const float2 w = *reinterpret_cast<const float2*>(staged + width + at);
    sum = __fmaf_rn(x.x, w.x, sum);
    sum = __fmaf_rn(x.y, w.y, sum);
  }
  sum = SumLanes(sum);
  if (threadIdx.x == 0) args.logits[blockIdx.x] = sum;
}

// Many rows: half a warp has kExperts experts of kRows rows, so that each weight that came serves several
// sums; kAhead lines are under way.
template <int kRows, int kExperts, int kAhead>
__global__ void __launch_bounds__(kThreads) LogitsKernel(const __grid_constant__ LogitsArgs args) {
  BeginOverlapping();
  const int64_t item =
      (static_cast<int64_t>(blockIdx.x) * kThreads + threadIdx.x) / kLanes;
  const int lane = static_cast<int>(threadIdx.x) % kLanes;
  const int n_groups = (args.n_experts + kExperts - 1) / kExperts;
  const int first_expert = static_cast<int>(item % n_groups) * kExperts;
  const int64_t first_row = item / n_groups * kRows;
  // What there is none of is computed again, and not stored.
  const float* weights[kExperts];
  const float* rows[kRows];
#pragma unroll
  for (int e = 0; e < kExperts; ++e) {
    weights[e] = args.gate + int64_t{min(first_expert + e, args.n_experts - 1)} * args.d + 2 * lane;
  }
#pragma unroll
  for (int r = 0; r < kRows; ++r) {
    const int64_t row = first_row + r < args.n_rows ? first_row + r : args.n_rows - 1;
    rows[r] = args.h + row * args.d + 2 * lane;
  }
  float sums[kRows][kExperts] = {};
  for (int line = 0; line < args.d; line += kLine * kAhead) {
    float2 w[kAhead][kExperts], x[kAhead][kRows];
#pragma unroll
    for (int a = 0; a < kAhead; ++a) {
      const int at = line + kLine * a;
      const bool there = at + 2 * lane < args.d;
#pragma unroll
      for (int e = 0; e < kExperts; ++e) {
        w[a][e] = there ? *reinterpret_cast<const float2*>(weights[e] + at) : make_float2(0.0f, 0.0f);
      }
#pragma unroll
      for (int r = 0; r < kRows; ++r) {
        x[a][r] = there ? *reinterpret_cast<const float2*>(rows[r] + at) : make_float2(0.0f, 0.0f);
      }
    }
#pragma unroll
    for (int a = 0; a < kAhead; ++a) {
      if (line + kLine * a >= args.d) break;
#pragma unroll
      for (int r = 0; r < kRows; ++r) {
#pragma unroll
        for (int e = 0; e < kExperts; ++e) {
          sums[r][e] = __fmaf_rn(x[a][r].x, w[a][e].x, sums[r][e]);
          sums[r][e] = __fmaf_rn(x[a][r].y, w[a][e].y, sums[r][e]);
        }
      }
    }
  }
#pragma unroll
  for (int r = 0; r < kRows; ++r) {
#pragma unroll
    for (int e = 0; e < kExperts; ++e) {
      const float sum = SumLanes(sums[r][e]);
      if (lane == 0 && first_row + r < args.n_rows && first_expert + e < args.n_experts) {
        args.logits[(first_row + r) * args.n_experts + first_expert + e] = sum;
      }
    }
  }
}

template <int kRows, int kExperts, int kAhead>
cudaError_t LaunchLogits(const LogitsArgs& args, cudaStream_t stream) {
  const int64_t n_items = (args.n_rows + kRows - 1) / kRows * ((args.n_experts + kExperts - 1) / kExperts);
  constexpr int64_t kItems = kThreads / kLanes;  // of a block
  return LaunchKernel(LogitsKernel<kRows, kExperts, kAhead>,
                      {.n_blocks = Blocks(n_items, kItems), .n_threads = kThreads, .overlaps = kMayOverlap},
                      stream, args);
}

struct TopKArgs {
  const float* logits;
  int64_t n_rows;
  int n_experts;
  int top_k;
  int32_t* experts;
  float* weights;
};

constexpr int kTopKWarps = 4;  // of a block, a row each

// An expert and its logit; before another one if it is chosen first.
struct Candidate {
  float logit;
  int expert;  // negative: none
};
__device__ __forceinline__ bool IsBefore(const Candidate& a, const Candidate& b) {
  if (a.expert < 0 || b.expert < 0) return b.expert < 0 && a.expert >= 0;
  return a.logit != b.logit ? a.logit > b.logit : a.expert < b.expert;
}

__global__ void __launch_bounds__(kTopKWarps* kWarp)
    TopKKernel(const __grid_constant__ TopKArgs args) {
  BeginOverlapping();
  __shared__ Candidate chosen_rows[kTopKWarps][kMaxRouterTopK];
  const int warp = static_cast<int>(threadIdx.x) / kWarp, lane = static_cast<int>(threadIdx.x) % kWarp;
  const int64_t row = static_cast<int64_t>(blockIdx.x) * kTopKWarps + warp;
  if (row >= args.n_rows) return;  // the whole warp
  const float* const logits = args.logits + row * args.n_experts;
  Candidate* const chosen = chosen_rows[warp];
  Candidate last = {0.0f, -1};
  for (int k = 0; k < args.top_k; ++k) {  // the first after those that are chosen
    Candidate best = {0.0f, -1};
    for (int e = lane; e < args.n_experts; e += kWarp) {
      const float logit = logits[e];
      // NaN is the least likely.
      const Candidate one = {logit > -FLT_MAX ? (logit < FLT_MAX ? logit : FLT_MAX) : -FLT_MAX, e};
      if ((k == 0 || IsBefore(last, one)) && IsBefore(one, best)) best = one;
    }
#pragma unroll
    for (int step = kWarp / 2; step > 0; step /= 2) {
      const Candidate other = {__shfl_xor_sync(kAllLanes, best.logit, step),
                               __shfl_xor_sync(kAllLanes, best.expert, step)};
      if (IsBefore(other, best)) best = other;
    }
    last = best;
    if (lane == 0) chosen[k] = best;
  }
  __syncwarp();
  // The softmax's own denominator cancels in the division.
  float sum = 0.0f;
  for (int k = 0; k < args.top_k; ++k) {
    sum = __fadd_rn(sum, VirtualExp(__fsub_rn(chosen[k].logit, chosen[0].logit)));
  }
  for (int k = lane; k < args.top_k; k += kWarp) {
    int place = 0;  // in ascending order
    for (int i = 0; i < args.top_k; ++i) place += chosen[i].expert < chosen[k].expert ? 1 : 0;
    const int64_t to = row * args.top_k + place;
    args.experts[to] = chosen[k].expert;
    args.weights[to] = __fdiv_rn(VirtualExp(__fsub_rn(chosen[k].logit, chosen[0].logit)), sum);
  }
}

struct AllArgs {
  int64_t n_routes;
  int n_slices;
  int32_t* experts;
  float* weights;
};

__global__ void __launch_bounds__(kThreads) AllKernel(const __grid_constant__ AllArgs args) {
  BeginOverlapping();
  const int64_t i = static_cast<int64_t>(blockIdx.x) * kThreads + threadIdx.x;
  if (i >= args.n_routes) return;
  args.experts[i] = static_cast<int32_t>(i % args.n_slices);
  args.weights[i] = 1.0f;
}

struct FoldArgs {
  const float* answers;
  const float* weights;
  float* x;
  int64_t n;  // floats of x
  int top_k;
  int d;
};

template <bool kRound>
__device__ __forceinline__ float4 AsFolded(const float4& a) {
  if constexpr (!kRound) return a;
  return Rounded(a);
}

template <bool kRound>
__global__ void __launch_bounds__(kThreads) FoldKernel(const __grid_constant__ FoldArgs args) {
  BeginOverlapping();
  const int64_t at = (static_cast<int64_t>(blockIdx.x) * kThreads + threadIdx.x) * 4;
  if (at >= args.n) return;
  const int64_t row = at / args.d, i = at % args.d;
  float4 sum = make_float4(0.0f, 0.0f, 0.0f, 0.0f);
  for (int k = 0; k < args.top_k; ++k) {
    const float4 a = AsFolded<kRound>(
        *reinterpret_cast<const float4*>(args.answers + (row * args.top_k + k) * args.d + i));
    const float w = args.weights[row * args.top_k + k];
    sum = make_float4(__fmaf_rn(a.x, w, sum.x), __fmaf_rn(a.y, w, sum.y), __fmaf_rn(a.z, w, sum.z),
                      __fmaf_rn(a.w, w, sum.w));
  }
  float4* const to = reinterpret_cast<float4*>(args.x + at);
  const float4 x = *to;
  *to = make_float4(__fadd_rn(x.x, sum.x), __fadd_rn(x.y, sum.y), __fadd_rn(x.z, sum.z),
                    __fadd_rn(x.w, sum.w));
}

bool IsWidth(int64_t d) { return d > 0 && d % 8 == 0 && d <= kMaxRouterWidth; }
bool AreExperts(int n_experts, int top_k) {
  return top_k >= 1 && top_k <= n_experts && top_k <= kMaxRouterTopK &&
         n_experts <= kMaxRouterExperts;
}

}  // namespace

cudaError_t RouterNorm(const float* x, const float* weight, float eps, float* h, int64_t n_rows,
                       int64_t d, cudaStream_t stream) {
  if (n_rows < 0 || !IsWidth(d) || !IsAligned(x) || !IsAligned(weight) || !IsAligned(h)) {
    return cudaErrorInvalidValue;
  }
  static std::atomic<bool> is_allowed = false;
  GF_CUDA_RETURN_IF_ERROR(AllowShared(NormKernel, static_cast<int>(kMaxRouterWidth * sizeof(float)),
                                      false, &is_allowed));
  return LaunchKernel(NormKernel,
                      {.n_blocks = n_rows,
                       .n_threads = kThreads,
                       .shared_bytes = static_cast<int>(d * sizeof(float)),
                       .overlaps = kMayOverlap},
                      stream,
                      NormArgs{.x = x, .weight = weight, .eps = eps, .h = h, .d = static_cast<int>(d)});
}

cudaError_t GateLogits(const float* h, const float* gate, float* logits, int64_t n_rows, int64_t d,
                       int n_experts, cudaStream_t stream) {
  if (n_rows < 0 || !IsWidth(d) || !AreExperts(n_experts, 1) || !IsAligned(h) || !IsAligned(gate) ||
      !IsAligned(logits)) {
    return cudaErrorInvalidValue;
  }
  const LogitsArgs args = {.h = h,
                           .gate = gate,
                           .logits = logits,
                           .n_rows = n_rows,
                           .d = static_cast<int>(d),
                           .n_experts = n_experts};
  constexpr int kFew = 2048;                // rows times experts
  constexpr int64_t kFewWidth = 12 * 1024;  // what fits into any device's shared memory, twice
  if (n_rows * n_experts > kFew || d > kFewWidth) return LaunchLogits<4, 2, 2>(args, stream);
  const auto shared_bytes = [](int64_t width) {
    return static_cast<int>(2 * RoundUp(width, kLine) * sizeof(float));
  };
  static std::atomic<bool> is_allowed = false;
  GF_CUDA_RETURN_IF_ERROR(
      AllowShared(FewLogitsKernel, shared_bytes(kFewWidth), false, &is_allowed));
  return LaunchKernel(FewLogitsKernel,
                      {.n_blocks = n_rows * n_experts,
                       .n_threads = kThreads,
                       .shared_bytes = shared_bytes(d),
                       .overlaps = kMayOverlap},
                      stream, args);
}

cudaError_t GateTopK(const float* logits, int64_t n_rows, int n_experts, int top_k,
                     int32_t* experts, float* weights, cudaStream_t stream) {
  if (n_rows < 0 || !AreExperts(n_experts, top_k) || !IsAligned(logits) || !IsAligned(experts) ||
      !IsAligned(weights)) {
    return cudaErrorInvalidValue;
  }
  return LaunchKernel(TopKKernel,
                      {.n_blocks = Blocks(n_rows, kTopKWarps),
                       .n_threads = kTopKWarps * kWarp,
                       .overlaps = kMayOverlap},
                      stream,
                      TopKArgs{.logits = logits,
                               .n_rows = n_rows,
                               .n_experts = n_experts,
                               .top_k = top_k,
                               .experts = experts,
                               .weights = weights});
}

cudaError_t RouteToAll(int64_t n_rows, int n_slices, int32_t* experts, float* weights,
                       cudaStream_t stream) {
  if (n_rows < 0 || !AreExperts(n_slices, 1) || !IsAligned(experts) || !IsAligned(weights)) {
    return cudaErrorInvalidValue;
  }
  const int64_t n = n_rows * n_slices;
  return LaunchKernel(
      AllKernel, {.n_blocks = Blocks(n, kThreads), .n_threads = kThreads, .overlaps = kMayOverlap}, stream,
      AllArgs{.n_routes = n, .n_slices = n_slices, .experts = experts, .weights = weights});
}

cudaError_t FoldAnswers(const float* answers, const float* weights, bool round_answers, float* x,
                        int64_t n_rows, int top_k, int64_t d, cudaStream_t stream) {
  if (n_rows < 0 || !IsWidth(d) || top_k < 1 || !IsAligned(answers) || !IsAligned(weights) ||
      !IsAligned(x)) {
    return cudaErrorInvalidValue;
  }
  const Grid grid = {.n_blocks = Blocks(n_rows * d, kThreads * 4),
                     .n_threads = kThreads,
                     .overlaps = kMayOverlap};
  const FoldArgs args = {.answers = answers,
                         .weights = weights,
                         .x = x,
                         .n = n_rows * d,
                         .top_k = top_k,
                         .d = static_cast<int>(d)};
  return LaunchKernel(round_answers ? FoldKernel<true> : FoldKernel<false>, grid, stream, args);
}

}  // namespace gatefold::cuda
