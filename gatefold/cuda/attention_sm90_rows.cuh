#pragma once

// How the rows of a warpgroup of Hopper's wide kernel come and go. Their queries are copied into shared
// memory while the segment before is still multiplied; their results leave through it, so that a warp writes
// whole rows and not eight pieces of eight. For sm_90a only.

#include "gatefold/cuda/attention_work.h"
#include "gatefold/cuda/wgmma.cuh"

namespace gatefold::cuda::sm90 {

// 64 (row, query head) pairs of a segment, first_pair of its tile and those after it. Four warps: thread i
// of a warp has of its 16 pairs i / 4 and 8 more, of each 8 dims the two at 2 (i % 4).
template <int kHeadDim>
class PairRows {
 public:
  static constexpr int kPairs = 64;
  static constexpr int kThreads = 128;
  static constexpr int kHalfBytes = kPairs * 128;
  // Queries: [head_dim / 64][64 pairs][64], as the matrix instructions want them.
  static constexpr int kQueryBytes = kPairs * kHeadDim * 2;
  // Results: each warp's 16 pairs, in float32.
  static constexpr int kWarpResultBytes = kPairs / 4 * kHeadDim * 4;
  static constexpr int kResultBytes = 4 * kWarpResultBytes;

  // barrier: of the group's threads.
  __device__ __forceinline__ PairRows(const AttentionArgs& args, int first_pair, int thread,
                                      int barrier, unsigned char* queries, unsigned char* results)
      : args_(args),
        first_pair_(first_pair),
        thread_(thread),
        barrier_(barrier),
        queries_(queries),
        results_(results + thread / kWarp * kWarpResultBytes) {}

  __device__ __forceinline__ const unsigned char* queries() const { return queries_; }
  // Of the thread's warp, for whatever it likes until it sends results.
  __device__ __forceinline__ unsigned char* results() const { return results_; }
  __device__ __forceinline__ void Sync() const { SyncThreads<kThreads>(barrier_); }

  __device__ __forceinline__ bool AnyOf(const AttentionSegment& item) const {
    return first_pair_ < item.n_rows * args_.group;
  }

  // Of the thread's two pairs.
  __device__ __forceinline__ bool LocateRow(const AttentionSegment& item, int i, int& row,
                                            int& head) const {
    return LocatePair(item, PairOf(i), row, head);
  }

  // Nobody multiplies with the queries before.
  __device__ __forceinline__ void Start(const AttentionSegment& item) {
    constexpr int kPieces = kHeadDim / 8;  // of 16 bytes
    const int piece = thread_ % kPieces, first = thread_ / kPieces;
    const uint32_t to = SharedAddress(queries_) + piece / 8 * kHalfBytes + first * 128 +
                        (((piece ^ first) & 7) << 4);
    static_assert(kThreads / kPieces % 8 == 0);
#pragma unroll
    for (int at = 0; at < kPairs; at += kThreads / kPieces) {
      int row, head;
      const bool valid = Locate(args_, item, first_pair_ + first + at, row, head);
      const int64_t from = (static_cast<int64_t>(row) * args_.n_heads + head) * kHeadDim + piece * 8;
      CopyAsync16(to + at * 128, args_.q + (valid ? from : 0), valid);
    }
    CommitCopies();
#pragma unroll
    for (int i = 0; i < 2; ++i) {
      int row, head;
      const bool valid = LocateRow(item, i, row, head);
      position_[i] = valid ? args_.positions[row] : -1;
    }
  }

  // The queries that were started are there.
  __device__ __forceinline__ void Await() const {
    WaitForCopies<0>();
    FenceAsync();
    Sync();
  }

  // Of the thread's two pairs; -1: there is none. Till the next Start.
  __device__ __forceinline__ int Position(int i) const { return position_[i]; }

  // values[4 n + 2 i + e]: dim 8 n + 2 (thread % 4) + e of pair i.
  __device__ __forceinline__ void Send(const AttentionSegment& item,
                                       const float (&values)[kHeadDim / 2],
                                       const float (&reciprocal)[2]) const {
    __syncwarp();  // all are done with what lay there
    if (args_.out != nullptr) {
      Send<4>(item, values, reciprocal);
    } else {
      Send<2>(item, values, reciprocal);
    }
    __syncwarp();  // all have read it
  }

 private:
  // Of the warp's 16.
  __device__ __forceinline__ int PairOf(int i) const { return thread_ % kWarp / 4 + i * 8; }
  __device__ __forceinline__ bool LocatePair(const AttentionSegment& item, int pair, int& row,
                                             int& head) const {
    return Locate(args_, item, first_pair_ + thread_ / kWarp * 16 + pair, row, head);
  }

  // A pair's results start at this byte of its place and go around its end: so that pairs beside each
  // other are written into different banks.
  template <int kSize>
  __device__ __forceinline__ static int Turn(int pair) {
    return kSize == 4 ? pair % 4 * 32 : pair % 8 * 16;
  }

  // kSize: bytes of a value.
  template <int kSize>
  __device__ __forceinline__ void Send(const AttentionSegment& item,
                                       const float (&values)[kHeadDim / 2],
                                       const float (&reciprocal)[2]) const {
    constexpr int kRowBytes = kHeadDim * kSize;
#pragma unroll
    for (int i = 0; i < 2; ++i) {
      unsigned char* const place = results_ + PairOf(i) * kRowBytes;
      const int begin = Turn<kSize>(PairOf(i)) + 2 * (thread_ % 4) * kSize;
#pragma unroll
      for (int n = 0; n < kHeadDim / 8; ++n) {
        const float x = Normalised(values[n * 4 + 2 * i], reciprocal[i]);
        const float y = Normalised(values[n * 4 + 2 * i + 1], reciprocal[i]);
        unsigned char* const to = place + (begin + n * 8 * kSize) % kRowBytes;
        if constexpr (kSize == 4) {
          *reinterpret_cast<float2*>(to) = make_float2(x, y);
        } else {
          *reinterpret_cast<uint32_t*>(to) = PackBF16(x, y);
        }
      }
    }
    __syncwarp();
    constexpr int kLanes = kRowBytes / 16;  // that copy a pair
    const int lane = thread_ % kWarp, piece = lane % kLanes * 16;
#pragma unroll 2
    for (int first = 0; first < 16; first += kWarp / kLanes) {
      const int pair = first + lane / kLanes;
      int row, head;
      if (!LocatePair(item, pair, row, head)) continue;
      const unsigned char* const from =
          results_ + pair * kRowBytes + (piece + Turn<kSize>(pair)) % kRowBytes;
      const int64_t at = (static_cast<int64_t>(row) * args_.n_heads + head) * kHeadDim + piece / 4;
      char* const to = kSize == 4 ? reinterpret_cast<char*>(args_.out + at)
                                  : ActivationsAt<kHeadDim>(args_, row, head, piece / 2);
      *reinterpret_cast<uint4*>(to) = *reinterpret_cast<const uint4*>(from);
    }
  }

  const AttentionArgs& args_;
  const int first_pair_, thread_, barrier_;
  unsigned char* const queries_;
  unsigned char* const results_;
  int position_[2];
};

}  // namespace gatefold::cuda::sm90
