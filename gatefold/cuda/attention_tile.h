#pragma once

// One warp's share of a tile: 16 query rows against 64 positions. Device code only.
// Everything that makes up a row's bits is here and in softmax_parts.h; Hopper's kernels give the
// same.
//
// Fragments of m16n8k16: lane i holds rows g = i / 4 and g + 8, and of each 8 columns the two at
// 2 (i % 4).

#include "gatefold/cuda/attention_work.h"

namespace gatefold::cuda {

// Starts the copy of 64 positions from the cache, as they lie there; those outside [lo, hi] become
// zeros unread. from: the KV head's place in block 0. blocks: ids of the tile's four blocks.
template <int kHeadDim, int kThreads>
__device__ __forceinline__ void LoadTile(uint32_t to, const __nv_bfloat16* from,
                                         int64_t block_elements, const int (&blocks)[4],
                                         int first_position, int lo, int hi) {
  constexpr int kBlockPieces = 2 * kHeadDim;
  constexpr int kStep = kThreads < kBlockPieces ? kThreads : kBlockPieces;
  const int at = static_cast<int>(threadIdx.x);
  if (kThreads > kStep && at >= kStep) return;
  from += at * 8;
  to += at * 16;
#pragma unroll
  for (int b = 0; b < 4; ++b) {
    const int begin = first_position + b * 16;
    // Ids past the sequence's end may be anything; an address lies in the cache even if unread.
    const bool used = begin <= hi && begin + 15 >= lo;
    const __nv_bfloat16* block = from + (used ? blocks[b] : 0) * block_elements;
#pragma unroll
    for (int i = 0; i < kBlockPieces; i += kStep) {
      const int position = begin + (i + at) / 8 % 16;
      CopyAsync16(to + (b * kBlockPieces + i) * 16, block + i * 8,
                  position >= lo && position <= hi);
    }
  }
}

// The state of a warp's 16 rows within a chunk of the context.
template <int kHeadDim>
struct WarpRows {
  uint32_t q[kHeadDim / 16][4];
  // Positions that the lane's two rows read.
  int first[2];
  int last[2];
  float m[2];
  float l[2][2];  // of this lane's even and odd columns
  float o[kHeadDim / 8][4];

  // The sums of a chunk. Weights are added by position modulo 8, then those sums by twos.
  __device__ __forceinline__ void SumLanes(float (&sum)[2]) const {
#pragma unroll
    for (int i = 0; i < 2; ++i) {
      sum[i] = __fadd_rn(l[i][0], l[i][1]);
      sum[i] = __fadd_rn(sum[i], __shfl_xor_sync(kAllLanes, sum[i], 1));
      sum[i] = __fadd_rn(sum[i], __shfl_xor_sync(kAllLanes, sum[i], 2));
    }
  }

  __device__ __forceinline__ void StartChunk() {
#pragma unroll
    for (int i = 0; i < 2; ++i) {
      m[i] = kNever;
      l[i][0] = l[i][1] = 0.0f;
    }
#pragma unroll
    for (int n = 0; n < kHeadDim / 8; ++n) {
#pragma unroll
      for (int e = 0; e < 4; ++e) o[n][e] = 0.0f;
    }
  }
};

// s = q k, 16 rows by 64 positions.
template <int kHeadDim>
__device__ __forceinline__ void Score(const WarpRows<kHeadDim>& rows, uint32_t keys,
                                      float (&s)[8][4]) {
  const int lane = static_cast<int>(threadIdx.x) % kWarp;
  keys += PlaceOf<kHeadDim>((lane & 7) + ((lane >> 4) << 3), (lane >> 3) & 1);
#pragma unroll
  for (int n = 0; n < 8; ++n) {
#pragma unroll
    for (int e = 0; e < 4; ++e) s[n][e] = 0.0f;
  }
#pragma unroll
  for (int k = 0; k < kHeadDim / 16; ++k) {
#pragma unroll
    for (int j = 0; j < 4; ++j) {
      uint32_t b[4];
      LoadMatrices((keys ^ ((k % 4) << 5)) + k / 4 * 2048 + j * 16 * kHeadDim * 2, b);
      MultiplyAdd(s[2 * j], rows.q[k], b[0], b[1]);
      MultiplyAdd(s[2 * j + 1], rows.q[k], b[2], b[3]);
    }
  }
}

// Scores to weights relative to the highest so far, which what was gathered is scaled to.
// p: the weights in bf16, as the left operands of four products over 16 positions each.
// A row none of whose positions lie in the tile keeps its state.
template <int kHeadDim>
__device__ __forceinline__ void Weigh(WarpRows<kHeadDim>& rows, float (&s)[8][4], float scale_log2,
                                      int first_position, bool mask, uint32_t (&p)[4][4]) {
  const int column = 2 * (static_cast<int>(threadIdx.x) % 4);
  if (mask) {
#pragma unroll
    for (int n = 0; n < 8; ++n) {
#pragma unroll
      for (int e = 0; e < 4; ++e) {
        const int position = first_position + n * 8 + column + (e & 1);
        if (position < rows.first[e >> 1] || position > rows.last[e >> 1]) s[n][e] = kNever;
      }
    }
  }
  float top[2] = {kNever, kNever};
#pragma unroll
  for (int n = 0; n < 8; ++n) {
#pragma unroll
    for (int e = 0; e < 4; ++e) top[e >> 1] = fmaxf(top[e >> 1], s[n][e]);
  }
  float scale[2], reference[2], sum[2][2] = {};
#pragma unroll
  for (int i = 0; i < 2; ++i) {
    top[i] = fmaxf(top[i], __shfl_xor_sync(kAllLanes, top[i], 1));
    top[i] = fmaxf(top[i], __shfl_xor_sync(kAllLanes, top[i], 2));
    top[i] = fmaxf(rows.m[i], __fmul_rn(top[i], scale_log2));
    reference[i] = Reference(top[i]);
    scale[i] = Exp2(__fsub_rn(rows.m[i], reference[i]));
    rows.m[i] = top[i];
  }
#pragma unroll
  for (int n = 0; n < 8; ++n) {
#pragma unroll
    for (int e = 0; e < 4; ++e) {
      s[n][e] = Weight(s[n][e], scale_log2, reference[e >> 1]);
      sum[e >> 1][e & 1] = __fadd_rn(sum[e >> 1][e & 1], s[n][e]);
    }
    p[n / 2][2 * (n % 2)] = PackBF16(s[n][0], s[n][1]);
    p[n / 2][2 * (n % 2) + 1] = PackBF16(s[n][2], s[n][3]);
  }
#pragma unroll
  for (int i = 0; i < 2; ++i) {
    rows.l[i][0] = __fmaf_rn(rows.l[i][0], scale[i], sum[i][0]);
    rows.l[i][1] = __fmaf_rn(rows.l[i][1], scale[i], sum[i][1]);
  }
#pragma unroll
  for (int n = 0; n < kHeadDim / 8; ++n) {
#pragma unroll
    for (int e = 0; e < 4; ++e) rows.o[n][e] = __fmul_rn(rows.o[n][e], scale[e >> 1]);
  }
}

// o += p v.
template <int kHeadDim>
__device__ __forceinline__ void Gather(WarpRows<kHeadDim>& rows, const uint32_t (&p)[4][4],
                                       uint32_t values) {
  const int lane = static_cast<int>(threadIdx.x) % kWarp;
  values += PlaceOf<kHeadDim>(lane & 15, lane >> 4);
#pragma unroll
  for (int k = 0; k < 4; ++k) {
#pragma unroll
    for (int j = 0; j < kHeadDim / 16; ++j) {
      uint32_t b[4];
      LoadMatricesTransposed((values ^ ((j % 4) << 5)) + j / 4 * 2048 + k * 16 * kHeadDim * 2, b);
      MultiplyAdd(rows.o[2 * j], p[k], b[0], b[1]);
      MultiplyAdd(rows.o[2 * j + 1], p[k], b[2], b[3]);
    }
  }
}

}  // namespace gatefold::cuda
