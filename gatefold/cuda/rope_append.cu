#include <limits>

#include "gatefold/cuda/attention.h"
#include "gatefold/cuda/launch.h"
#include "gatefold/cuda/warp_ops.h"

namespace gatefold::cuda {
namespace {

struct RopeArgs {
  int n_rows;
  const int32_t* positions;
  const int32_t* sequences;
  const int32_t* block_tables;
  int table_stride;
  int n_heads;
  int n_kv_heads;
  const float* qkv;
  int64_t qkv_stride;
  const float* cos;
  const float* sin;
  __nv_bfloat16* q;
  __nv_bfloat16* kv;
};

constexpr int kRopeWarps = 4;
constexpr float kNaN = std::numeric_limits<float>::quiet_NaN();

// Where head `head` of the row's q, k and v in that order goes: q, or 16 positions in the cache.
template <int kHeadDim>
__device__ __forceinline__ __nv_bfloat16* Place(const RopeArgs& args, int row, int position,
                                                int head) {
  if (head < args.n_heads) {
    return args.q + (static_cast<int64_t>(row) * args.n_heads + head) * kHeadDim;
  }
  constexpr int kTokens = KvCacheLayout::kBlockTokens;
  const int32_t* table =
      args.block_tables + static_cast<int64_t>(args.sequences[row]) * args.table_stride;
  const bool is_key = head < args.n_heads + args.n_kv_heads;
  const int kv_head = head - args.n_heads - (is_key ? 0 : args.n_kv_heads);
  const int64_t block = table[position / kTokens];
  return args.kv + ((block * args.n_kv_heads + kv_head) * 2 + !is_key) * kTokens * kHeadDim;
}

// Whether all of a head are numbers as bfloat16. All lanes of the warp.
template <int kHeadDim>
__device__ __forceinline__ bool AreNumbers(const float* head) {
  bool are = true;
#pragma unroll
  for (int i = static_cast<int>(threadIdx.x) % kWarp; i < kHeadDim; i += kWarp) {
    are &= isfinite(__bfloat162float(__float2bfloat16_rn(head[i])));
  }
  return __ballot_sync(kAllLanes, !are) == 0;
}

// A warp per (row, head of q, k or v).
template <int kHeadDim>
__global__ void __launch_bounds__(kRopeWarps* kWarp)
    RopeAppendKernel(const __grid_constant__ RopeArgs args) {
  BeginOverlapping();
  constexpr int kHalf = kHeadDim / 2;
  const int n_all = args.n_heads + 2 * args.n_kv_heads;
  const int64_t at =
      static_cast<int64_t>(blockIdx.x) * kRopeWarps + static_cast<int>(threadIdx.x) / kWarp;
  if (at >= static_cast<int64_t>(args.n_rows) * n_all) return;
  const int row = static_cast<int>(at / n_all);
  const int head = static_cast<int>(at % n_all);
  const int position = args.positions[row];
  const float* from = args.qkv + row * args.qkv_stride + head * kHeadDim;
  const float* cos = args.cos + static_cast<int64_t>(position) * kHalf;
  const float* sin = args.sin + static_cast<int64_t>(position) * kHalf;
  __nv_bfloat16* to = Place<kHeadDim>(args, row, position, head);
  const bool keeps = head >= args.n_heads;
  const int token = position % KvCacheLayout::kBlockTokens;
  const bool rotate = head < args.n_heads + args.n_kv_heads;
  // Whoever does not read a position weighs its value zero, which makes no zero of NaN: so values that are no
  // numbers are kept as zeros, and NaN is the key, which only those see who read it.
  const float* const value = rotate ? from + args.n_kv_heads * kHeadDim : from;
  const bool is_broken = keeps && !AreNumbers<kHeadDim>(value);
#pragma unroll
  for (int i = static_cast<int>(threadIdx.x) % kWarp; i < kHalf; i += kWarp) {
    float a = from[i];
    float b = from[i + kHalf];
    if (rotate) {
      const float c = cos[i], s = sin[i];
      const float turned = __fsub_rn(__fmul_rn(a, c), __fmul_rn(b, s));
      b = __fadd_rn(__fmul_rn(b, c), __fmul_rn(a, s));
      a = turned;
    }
    if (is_broken) a = b = rotate ? kNaN : 0.0f;
    to[keeps ? KvCacheLayout::Place(token, i) : i] = __float2bfloat16_rn(a);
    to[keeps ? KvCacheLayout::Place(token, i + kHalf) : i + kHalf] = __float2bfloat16_rn(b);
  }
}

}  // namespace

cudaError_t RopeAppend(const AttentionShape& shape, const RowBatch& rows, const float* qkv,
                       int64_t qkv_stride, const RopeTables& rope, __nv_bfloat16* q,
                       __nv_bfloat16* kv, cudaStream_t stream) {
  const int n_all = shape.n_heads + 2 * shape.n_kv_heads;
  if (!shape.IsServed() || rows.n_rows <= 0 || rows.positions == nullptr ||
      rows.sequences == nullptr || rows.block_tables == nullptr || rows.table_stride <= 0 ||
      qkv == nullptr || qkv_stride < static_cast<int64_t>(n_all) * shape.head_dim ||
      rope.cos == nullptr || rope.sin == nullptr || q == nullptr || kv == nullptr) {
    return cudaErrorInvalidValue;
  }
  const RopeArgs args = {.n_rows = rows.n_rows,
                         .positions = rows.positions,
                         .sequences = rows.sequences,
                         .block_tables = rows.block_tables,
                         .table_stride = rows.table_stride,
                         .n_heads = shape.n_heads,
                         .n_kv_heads = shape.n_kv_heads,
                         .qkv = qkv,
                         .qkv_stride = qkv_stride,
                         .cos = rope.cos,
                         .sin = rope.sin,
                         .q = q,
                         .kv = kv};
  const int64_t n_warps = static_cast<int64_t>(rows.n_rows) * n_all;
  return LaunchKernel(shape.head_dim == 128 ? RopeAppendKernel<128> : RopeAppendKernel<64>,
                      {.n_blocks = (n_warps + kRopeWarps - 1) / kRopeWarps,
                       .n_threads = kRopeWarps * kWarp,
                       .overlaps = kMayOverlap},
                      stream, args);
}

}  // namespace gatefold::cuda
