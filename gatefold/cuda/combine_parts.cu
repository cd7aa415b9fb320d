#include "gatefold/cuda/combine_parts.h"

#include "gatefold/cuda/attention_plan.h"
#include "gatefold/cuda/launch.h"
#include "gatefold/cuda/softmax_parts.h"

namespace gatefold::cuda {
namespace {

constexpr int kCombineWarps = 4;

// A warp merges the parts of one (row, query head), ascending.
template <int kHeadDim>
__global__ void __launch_bounds__(kCombineWarps* kWarp)
    CombineKernel(const __grid_constant__ CombineArgs args) {
  constexpr int kEach = kHeadDim / kWarp;
  constexpr int kBatch = 8;  // parts read ahead
  const int lane = static_cast<int>(threadIdx.x) % kWarp;
  const int64_t at =
      static_cast<int64_t>(blockIdx.x) * kCombineWarps + static_cast<int>(threadIdx.x) / kWarp;
  if (at >= static_cast<int64_t>(args.n_rows) * args.n_heads) return;
  const int row = args.rows[at / args.n_heads];
  if (row < 0) return;
  const int head = static_cast<int>(at % args.n_heads);
  const int position = args.positions[row];
  const int first = FirstPosition(args.window, position) / kChunkTokens;
  const int n = position / kChunkTokens + 1 - first;
  const int64_t part = static_cast<int64_t>(args.row_slots[row] + first) * args.n_heads + head;
  const float* values = args.part_values + part * kHeadDim + lane * kEach;
  const float2* sums = args.part_sums + part;
  Softmax whole;
  float value[kEach] = {};
  for (int begin = 0; begin < n; begin += kBatch) {
    float2 sum[kBatch];
    float v[kBatch][kEach];
#pragma unroll
    for (int i = 0; i < kBatch; ++i) {
      if (begin + i < n) {
        const int64_t offset = static_cast<int64_t>(begin + i) * args.n_heads;
        sum[i] = sums[offset];
#pragma unroll
        for (int d = 0; d < kEach; d += 2) {
          const float2 two = *reinterpret_cast<const float2*>(values + offset * kHeadDim + d);
          v[i][d] = two.x;
          v[i][d + 1] = two.y;
        }
      }
    }
#pragma unroll
    for (int i = 0; i < kBatch; ++i) {
      if (begin + i < n) {
        const MergeWeights weights = Merge(sum[i].x, sum[i].y, whole);
#pragma unroll
        for (int d = 0; d < kEach; ++d) value[d] = MergeValue(value[d], v[i][d], weights);
      }
    }
  }
  const float reciprocal = __frcp_rn(whole.l);
  const int64_t to = (static_cast<int64_t>(row) * args.n_heads + head) * kHeadDim + lane * kEach;
#pragma unroll
  for (int d = 0; d < kEach; d += 2) {
    WritePair(args.out, args.out_bf16, to + d, Normalised(value[d], reciprocal),
              Normalised(value[d + 1], reciprocal));
  }
}

}  // namespace

cudaError_t CombineParts(int head_dim, const CombineArgs& args, cudaStream_t stream) {
  const int64_t n_warps = static_cast<int64_t>(args.n_rows) * args.n_heads;
  return LaunchKernel(head_dim == 128 ? CombineKernel<128> : CombineKernel<64>, args,
                      (n_warps + kCombineWarps - 1) / kCombineWarps, kCombineWarps * kWarp, 0,
                      stream);
}

}  // namespace gatefold::cuda
