#pragma once

// How keys and values come into shared memory on Hopper: tiles of 64 positions, keys and values in
// turn, through a ring that one warp fills with bulk copies, ahead of what is computed and into the
// worker's next segments. For sm_90a only.

#include "gatefold/cuda/attention_kernels.h"
#include "gatefold/cuda/attention_work.h"
#include "gatefold/cuda/wgmma.cuh"

namespace gatefold::cuda::sm90 {

// A stage, and how often the ring was all around. Every thread has its own.
template <int kHeadDim, int kStages>
struct Ring {
  static constexpr int kTileBytes = kTileTokens * kHeadDim * 2;
  static constexpr int kBytes = kStages * (kTileBytes + 16);

  __device__ __forceinline__ unsigned char* Tile(int stage) const {
    return shared + stage * kTileBytes;
  }
  __device__ __forceinline__ uint64_t* Full(int stage) const {
    return reinterpret_cast<uint64_t*>(shared + kStages * kTileBytes) + 2 * stage;
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

// The warp that fills the ring. kOnce: nobody else reads these keys and values, and tiles are
// blocks of 16 positions as in the cache. Else a tile is [head_dim / 64][64 positions][64], as
// wgmma wants it.
template <int kHeadDim, int kStages, bool kOnce>
__device__ __forceinline__ void FillRing(const AttentionArgs& args, Ring<kHeadDim, kStages> ring) {
  constexpr int kHeadBytes = 32 * kHeadDim;
  constexpr int kPieces = kOnce ? 1 : kHeadDim / 64;  // copies of a block
  constexpr int kPieceBytes = kHeadBytes / kPieces;
  const int lane = static_cast<int>(threadIdx.x) % kWarp;
  const int block = lane % 4, piece = lane / 4;
  const int64_t block_bytes = static_cast<int64_t>(kHeadBytes) * args.n_kv_heads;
  const int to = block * kPieceBytes + piece * 4 * kPieceBytes;
  const uint64_t policy = kOnce ? ReadOncePolicy() : 0;
  bool waited = false;
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
    if (!waited) AwaitKernelBefore();
    waited = true;
    for (; tile * kTileTokens <= hi; ++tile) {
      const int even_later = block_id(tile + 2);
      const int first = tile * kTileTokens;
      const int n_blocks = min(hi - first, kTileTokens - 1) / 16 - max(lo - first, 0) / 16 + 1;
      const bool copies = piece < kPieces && is_read(tile);
      const int64_t offset = s.kv_head * kHeadBytes + id * block_bytes + piece * kPieceBytes;
#pragma unroll 1
      for (int values = 0; values < 2; ++values) {
        ring.AwaitEmpty();
        if (lane == 0) BarrierExpect(ring.Full(ring.stage), n_blocks * kHeadBytes);
        __syncwarp();
        if (copies) {
          const char* const from =
              reinterpret_cast<const char*>(values ? args.values : args.keys) + offset;
          unsigned char* const tile_to = ring.Tile(ring.stage) + to;
          if constexpr (kOnce) {
            BulkCopyOnce(tile_to, from, kPieceBytes, ring.Full(ring.stage), policy);
          } else {
            BulkCopy(tile_to, from, kPieceBytes, ring.Full(ring.stage));
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
