#pragma once

// What a worker of any attention kernel does beside its products. Device code only.

#include "gatefold/cuda/attention_kernels.h"
#include "gatefold/cuda/softmax_parts.h"
#include "gatefold/cuda/warp_ops.h"

namespace gatefold::cuda {

constexpr int kTileTokens = 64;
constexpr int kChunkTiles = kChunkTokens / kTileTokens;

__device__ __forceinline__ AttentionSegment LoadSegment(const AttentionArgs& args, int index) {
  union Words {
    AttentionSegment segment;
    int4 words[3];
    __device__ Words() {}
  } u;
  const int4* from = reinterpret_cast<const int4*>(args.segments + index);
#pragma unroll
  for (int i = 0; i < 3; ++i) u.words[i] = LoadConstant(from + i);
  return u.segment;
}

__device__ __forceinline__ int FirstSegment(const AttentionArgs& args) {
  return args.first_worker + static_cast<int>(blockIdx.x);
}

// Positions that a segment reads: [lo, hi].
__device__ __forceinline__ int LoPosition(const AttentionArgs& args, const AttentionSegment& s) {
  return max(FirstPosition(args.window, s.min_position), s.first_chunk * kChunkTokens);
}
__device__ __forceinline__ int HiPosition(const AttentionSegment& s) {
  return min(s.max_position, (s.first_chunk + s.n_chunks) * kChunkTokens - 1);
}
// Whether its chunks are merged as they come.
__device__ __forceinline__ bool IsPrefix(const AttentionSegment& s) {
  return s.n_segments == 1 || s.first_chunk < s.prefix_end;
}

// Pair `at` of a tile: its row of the batch and its query head; false if there is none.
__device__ __forceinline__ bool Locate(const AttentionArgs& args, const AttentionSegment& s, int at,
                                       int& row, int& head) {
  row = s.first_row + at / args.group;
  head = s.kv_head * args.group + at % args.group;
  return at < s.n_rows * args.group;
}

// Where the part goes that a row leaves after `chunk`: of that chunk, or of all up to it. -1: none.
__device__ __forceinline__ int64_t PartOf(const AttentionArgs& args, const AttentionSegment& s,
                                          int chunk, int first, int last, int row, int head) {
  if (IsPrefix(s)) chunk = min(chunk, last / kChunkTokens);
  if (chunk < first / kChunkTokens || chunk > last / kChunkTokens) return -1;
  return static_cast<int64_t>(__ldg(args.row_slots + row) + chunk) * args.n_heads + head;
}

// Four dims of a row and head out of all its parts, ascending.
template <int kHeadDim, int kBatch>
__device__ __forceinline__ void MergeParts(const AttentionArgs& args, const AttentionSegment& s,
                                           int row, int head, int dim) {
  const int position = __ldg(args.positions + row);
  const int last = position / kChunkTokens;
  const int first =
      max(FirstPosition(args.window, position) / kChunkTokens, min(s.prefix_end - 1, last));
  const int n = last + 1 - first;
  const int64_t part =
      static_cast<int64_t>(__ldg(args.row_slots + row) + first) * args.n_heads + head;
  const float* values = args.part_values + part * kHeadDim + dim;
  const float2* sums = args.part_sums + part;
  Softmax whole;
  float4 merged = {};
#pragma unroll 1
  for (int begin = 0; begin < n; begin += kBatch) {
    float2 sum[kBatch];
    float4 v[kBatch];
#pragma unroll
    for (int i = 0; i < kBatch; ++i) {
      sum[i] = make_float2(kNever, 0.0f);  // leaves all as it is
      v[i] = make_float4(0.0f, 0.0f, 0.0f, 0.0f);
      if (begin + i < n) {
        const int64_t offset = static_cast<int64_t>(begin + i) * args.n_heads;
        sum[i] = __ldcg(sums + offset);
        v[i] = __ldcg(reinterpret_cast<const float4*>(values + offset * kHeadDim));
      }
    }
#pragma unroll
    for (int i = 0; i < kBatch; ++i) {
      const MergeWeights weights = Merge(sum[i].x, sum[i].y, whole);
      merged.x = MergeValue(merged.x, v[i].x, weights);
      merged.y = MergeValue(merged.y, v[i].y, weights);
      merged.z = MergeValue(merged.z, v[i].z, weights);
      merged.w = MergeValue(merged.w, v[i].w, weights);
    }
  }
  const float reciprocal = __frcp_rn(whole.l);
  const int64_t to = (static_cast<int64_t>(row) * args.n_heads + head) * kHeadDim + dim;
  WritePair(args.out, args.out_bf16, to, Normalised(merged.x, reciprocal),
            Normalised(merged.y, reciprocal));
  WritePair(args.out, args.out_bf16, to + 2, Normalised(merged.z, reciprocal),
            Normalised(merged.w, reciprocal));
}

// After all of a worker's segments, by all of its threads: merges the rows of those tiles that
// nobody else still works on. sync: a barrier of the threads; is_last: theirs, in shared memory.
template <int kHeadDim, int kBatch, typename Sync>
__device__ __forceinline__ void FinishSplitTiles(const AttentionArgs& args, int thread,
                                                 int n_threads, int* is_last, Sync&& sync) {
  __threadfence();
#pragma unroll 1
  for (int index = FirstSegment(args); index >= 0;) {
    const AttentionSegment s = LoadSegment(args, index);
    index = s.next;
    if (s.n_segments <= 1) continue;
    sync();
    if (thread == 0) {
      *is_last = atomicAdd(args.counters + s.counter, 1) == s.n_segments - 1;
      if (*is_last) args.counters[s.counter] = 0;
    }
    sync();
    if (!*is_last) continue;
    __threadfence();
    constexpr int kEach = kHeadDim / 4;
#pragma unroll 1
    for (int i = thread; i < s.n_rows * args.group * kEach; i += n_threads) {
      int row, head;
      Locate(args, s, i / kEach, row, head);
      MergeParts<kHeadDim, kBatch>(args, s, row, head, i % kEach * 4);
    }
  }
}

// Place of 16 bytes in a tile in shared memory: blocks of 16 positions as they lie in the cache.
template <int kHeadDim>
__device__ __forceinline__ uint32_t PlaceOf(int token, int piece) {
  return token / 16 * (kHeadDim * 32) + piece / 8 * 2048 + token % 16 * 128 +
         (((piece ^ token) & 7) << 4);
}

}  // namespace gatefold::cuda
