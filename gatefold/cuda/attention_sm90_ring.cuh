#pragma once

// How keys and values come into shared memory on Hopper: tiles of 64 positions through a ring that
// one warp fills with bulk copies, ahead of what is computed and into the worker's next segments.
// For sm_90a only.

#include "gatefold/cuda/attention_kernels.h"
#include "gatefold/cuda/attention_work.h"
#include "gatefold/cuda/wgmma.cuh"

namespace gatefold::cuda::sm90 {

// A stage, and how often the ring was all around. Every thread has its own.
template <int kStageBytes, int kStages>
struct Ring {
  static constexpr int kBytes = kStages * (kStageBytes + 16);

  __device__ __forceinline__ unsigned char* Stage(int stage) const {
    return shared + stage * kStageBytes;
  }
  __device__ __forceinline__ uint64_t* Full(int stage) const {
    return reinterpret_cast<uint64_t*>(shared + kStages * kStageBytes) + 2 * stage;
  }
  __device__ __forceinline__ uint64_t* Empty(int stage) const { return Full(stage) + 1; }
  __device__ __forceinline__ void AwaitFull() const { BarrierWait(Full(stage), parity); }
  __device__ __forceinline__ void AwaitEmpty() const { BarrierWait(Empty(stage), parity ^ 1); }
  __device__ __forceinline__ void Next() {
    if (++stage == kStages) {
      stage = 0;
      parity ^= 1;
    }
  }
  // One thread. users: arrivals that empty a stage.
  __device__ __forceinline__ void Init(int users) const {
    for (int i = 0; i < kStages; ++i) {
      BarrierInit(Full(i), 1);
      BarrierInit(Empty(i), users);
    }
    FenceAsync();
  }

  unsigned char* const shared;
  int stage = 0;
  uint32_t parity = 0;
};

// The warp that fills the ring. kTogether: a tile's keys and values are one stage, blocks as they
// lie in the cache, which nobody else reads. Else keys and values are stages in turn, each
// [head_dim / 64][64 positions][64], as wgmma wants it.
template <int kHeadDim, bool kTogether, typename R>
__device__ __forceinline__ void FillRing(const AttentionArgs& args, R ring) {
  constexpr int kPartBytes = 32 * kHeadDim;  // a head's keys in a block, or its values
  constexpr int kStagesOfTile = kTogether ? 1 : 2;
  constexpr int kBytes = 2 * kPartBytes / kStagesOfTile;  // of a block in a stage
  constexpr int kPieces = kTogether ? 1 : kHeadDim / 64;  // copies of them
  constexpr int kPieceBytes = kBytes / kPieces;
  const int lane = static_cast<int>(threadIdx.x) % kWarp;
  const int block = lane % 4, piece = lane / 4;
  const int64_t block_bytes = int64_t{2} * kPartBytes * args.n_kv_heads;
  const int to = block * kPieceBytes + piece * 4 * kPieceBytes;
  const uint64_t policy = kTogether ? ReadOncePolicy() : 0;
  bool waited = !kTogether;  // the kernel of wide tiles begins with it
#pragma unroll 1
  for (int index = FirstSegment(args); index >= 0;) {
    const AttentionSegment s = LoadSegment(args, index);
    index = s.next;
    const int lo = LoPosition(args, s), hi = HiPosition(s);
    const int32_t* table = args.block_tables + static_cast<int64_t>(s.sequence) * args.table_stride;
    const auto is_read = [&](int tile) {
      const int begin = tile * kTileTokens + block * 16;
      return begin <= hi && begin + 15 >= lo;
    };
    const auto block_id = [&](int tile) {
      return is_read(tile) ? __ldg(table + tile * 4 + block) : 0;
    };
    int tile = lo / kTileTokens;
    int id = block_id(tile), later = block_id(tile + 1);
    for (; tile * kTileTokens <= hi; ++tile) {
      // What the kernel before this one adds is new. All else is there, and is read while that one runs.
      if (!waited && min((tile + 1) * kTileTokens - 1, hi) >= s.first_new) {
        AwaitKernelBefore();
        waited = true;
      }
      const int even_later = block_id(tile + 2);
      const int first = tile * kTileTokens;
      const int n_blocks = min(hi - first, kTileTokens - 1) / 16 - max(lo - first, 0) / 16 + 1;
      const bool copies = piece < kPieces && is_read(tile);
      const char* const from = reinterpret_cast<const char*>(args.kv) + id * block_bytes +
                               s.kv_head * 2 * kPartBytes + piece * kPieceBytes;
#pragma unroll 1
      for (int i = 0; i < kStagesOfTile; ++i) {
        ring.AwaitEmpty();
        if (lane == 0) BarrierExpect(ring.Full(ring.stage), n_blocks * kBytes);
        __syncwarp();
        if (copies) {
          unsigned char* const stage = ring.Stage(ring.stage) + to;
          if constexpr (kTogether) {
            BulkCopyOnce(stage, from, kPieceBytes, ring.Full(ring.stage), policy);
          } else {
            BulkCopy(stage, from + i * kPartBytes, kPieceBytes, ring.Full(ring.stage));
          }
        }
        ring.Next();
      }
      id = later;
      later = even_later;
    }
  }
}

}  // namespace gatefold::cuda::sm90
