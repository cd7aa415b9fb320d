#pragma once

// What a worker of any attention kernel does beside its products. Device code only.

#include "gatefold/cuda/attention_kernels.h"
#include "gatefold/cuda/softmax_parts.h"
#include "gatefold/cuda/tiles.h"
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
  const int local = at * args.group_inverse >> 16;  // at / group
  row = s.first_row + local;
  head = s.kv_head * args.group + at - local * args.group;
  return at < s.n_rows * args.group;
}

// Where the part goes that a row leaves after `chunk`: of that chunk, or of all up to it. -1: none.
__device__ __forceinline__ int64_t PartOf(const AttentionArgs& args, const AttentionSegment& s,
                                          int chunk, int first, int last, int row, int head) {
  if (IsPrefix(s)) chunk = min(chunk, last / kChunkTokens);
  if (chunk < first / kChunkTokens || chunk > last / kChunkTokens) return -1;
  return static_cast<int64_t>(__ldg(args.row_slots + row) + chunk) * args.n_heads + head;
}

// Where dims from `dim` on of a result go as activations; eight lie together.
template <int kHeadDim>
__device__ __forceinline__ char* ActivationsAt(const AttentionArgs& args, int row, int head,
                                               int dim) {
  return args.activations + ActivationOffset(0, head * kHeadDim, args.n_rounded) +
         ActivationOffset(row, dim, args.n_rounded);
}

// Two neighbours of a result, to whichever of the outputs is there.
template <int kHeadDim>
__device__ __forceinline__ void WritePair(const AttentionArgs& args, int row, int head, int dim,
                                          float x, float y) {
  if (args.out != nullptr) {
    float* const to = args.out + (static_cast<int64_t>(row) * args.n_heads + head) * kHeadDim + dim;
    *reinterpret_cast<float2*>(to) = make_float2(x, y);
  } else {
    *reinterpret_cast<uint32_t*>(ActivationsAt<kHeadDim>(args, row, head, dim)) = PackBF16(x, y);
  }
}

// Row and head out of all its parts, ascending, by kHeadDim / 4 lanes with four dims each. All lanes of
// the warp take part, those without a row for nothing.
//
// A chain of sums over many parts takes long, so what can be found beside it is: the highest score up to
// each part needs no chain, and with it a lane has the weights of one part, which the others ask it for.
template <int kHeadDim, int kBatch>
__device__ __forceinline__ void MergeParts(const AttentionArgs& args, const AttentionSegment& s,
                                           bool has_row, int row, int head) {
  constexpr int kLanes = kHeadDim / 4;
  const int first_lane = static_cast<int>(threadIdx.x) % kWarp / kLanes * kLanes;
  const int lane = static_cast<int>(threadIdx.x) % kLanes;
  const float* values = nullptr;
  const float2* sums = nullptr;
  int n = 0;
  if (has_row) {
    const int position = __ldg(args.positions + row);
    const int last = position / kChunkTokens;
    const int first =
        max(FirstPosition(args.window, position) / kChunkTokens, min(s.prefix_end - 1, last));
    const int64_t part =
        static_cast<int64_t>(__ldg(args.row_slots + row) + first) * args.n_heads + head;
    n = last + 1 - first;
    values = args.part_values + part * kHeadDim + lane * 4;
    sums = args.part_sums + part;
  }
  const int stride = args.n_heads * kHeadDim;  // from part to part, of which no row has millions
  const int most = __reduce_max_sync(kAllLanes, n);
  Softmax whole;
  float4 merged = {};
#pragma unroll 1
  for (int begin = 0; begin < most; begin += kLanes) {
    float4 v[kBatch];
    const auto load = [&](int from) {
#pragma unroll
      for (int i = 0; i < kBatch; ++i) {
        v[i] = make_float4(0.0f, 0.0f, 0.0f, 0.0f);
        if (from + i < n) {
          v[i] = __ldcg(reinterpret_cast<const float4*>(values + (from + i) * stride));
        }
      }
    };
    load(begin);
    float2 sum = make_float2(kNever, 0.0f);  // leaves all as it is
    if (begin + lane < n) sum = __ldcg(sums + static_cast<int64_t>(begin + lane) * args.n_heads);
    float top = fmaxf(whole.m, sum.x);
#pragma unroll
    for (int by = 1; by < kLanes; by *= 2) {
      const float before = __shfl_up_sync(kAllLanes, top, by);
      if (lane >= by) top = fmaxf(top, before);
    }
    Softmax before = {.m = __shfl_up_sync(kAllLanes, top, 1), .l = 0.0f};
    if (lane == 0) before.m = whole.m;
    const MergeWeights mine = Merge(sum.x, sum.y, before);
    const float l = before.l;  // of the part alone
    whole.m = __shfl_sync(kAllLanes, top, first_lane + kLanes - 1);
#pragma unroll
    for (int from = 0; from < kLanes; from += kBatch) {
      if (from > 0) load(begin + from);
#pragma unroll
      for (int i = 0; i < kBatch; ++i) {
        const int of = first_lane + from + i;
        const MergeWeights weights = {__shfl_sync(kAllLanes, mine.whole, of),
                                      __shfl_sync(kAllLanes, mine.part, of)};
        whole.l = __fmaf_rn(whole.l, weights.whole, __shfl_sync(kAllLanes, l, of));
        merged.x = MergeValue(merged.x, v[i].x, weights);
        merged.y = MergeValue(merged.y, v[i].y, weights);
        merged.z = MergeValue(merged.z, v[i].z, weights);
        merged.w = MergeValue(merged.w, v[i].w, weights);
      }
    }
  }
  if (!has_row) return;
  const float reciprocal = __frcp_rn(whole.l);
  WritePair<kHeadDim>(args, row, head, lane * 4, Normalised(merged.x, reciprocal),
                      Normalised(merged.y, reciprocal));
  WritePair<kHeadDim>(args, row, head, lane * 4 + 2, Normalised(merged.z, reciprocal),
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
    constexpr int kPairs = kWarp / (kHeadDim / 4);  // that a warp merges at a time
#pragma unroll 1
    for (int first = thread / kWarp * kPairs; first < s.n_rows * args.group;
         first += n_threads / kWarp * kPairs) {
      int row, head;
      const bool has_row = Locate(args, s, first + thread % kWarp / (kHeadDim / 4), row, head);
      MergeParts<kHeadDim, kBatch>(args, s, has_row, row, head);
    }
  }
}

// Place of 16 bytes in shared memory of keys, or of values, whose blocks of 16 positions lie one after the
// other, each as in the cache.
template <int kHeadDim>
__device__ __forceinline__ uint32_t PlaceOf(int token, int piece) {
  return token / 16 * (kHeadDim * 32) + piece / 8 * 2048 + token % 16 * 128 +
         (((piece ^ token) & 7) << 4);
}

}  // namespace gatefold::cuda
