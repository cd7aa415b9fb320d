#pragma once

// A tile of quantised weights: what the packing kernel writes, and what products read.
//
// It lies as 128 threads of four warps take it for a matrix instruction's first operand, so that nothing
// is shuffled on the way: each has its weights in 16-byte pieces and turns them into bfloat16 in
// registers. Warp w has outputs 16 w to 16 w + 15; thread `lane` of it, for the 16 inputs from 16 k on,
//   a[k][0]  output lane / 4,      inputs 2 (lane % 4) and one more
//   a[k][1]  output lane / 4 + 8,  the same inputs
//   a[k][2]  output lane / 4,      inputs 2 (lane % 4) + 8 and one more
//   a[k][3]  output lane / 4 + 8,  the same inputs
//
//   int8   [2 groups of inputs, 128 threads, 4 words]: word 2 (k % 2) + j has, from its lowest byte on,
//          a[k][2 j] first, a[k][2 j + 1] first, a[k][2 j] second, a[k][2 j + 1] second
//   int4   [128 threads, 4 words]: word k has, from its lowest 4 bits on, the first of a[k][0] to a[k][3],
//          then the second of each; as q + 8
//   then   [32 pairs of outputs, 2 groups, 2] scales: of outputs 16 w + i and 16 w + i + 8, pair 8 w + i

#include <cuda_bf16.h>

#include <cstdint>

#include "gatefold/cuda/tiles.h"
#include "gatefold/cuda/warp_ops.h"

namespace gatefold::cuda {

__device__ inline uint32_t MultiplyPairs(uint32_t a, uint32_t b) {
  const __nv_bfloat162 product = __hmul2(reinterpret_cast<const __nv_bfloat162&>(a),
                                         reinterpret_cast<const __nv_bfloat162&>(b));
  return reinterpret_cast<const uint32_t&>(product);
}
__device__ inline uint32_t SubtractPairs(uint32_t a, uint32_t b) {
  const __nv_bfloat162 difference = __hsub2(reinterpret_cast<const __nv_bfloat162&>(a),
                                            reinterpret_cast<const __nv_bfloat162&>(b));
  return reinterpret_cast<const uint32_t&>(difference);
}

// bfloat16 from 128 to 255 have their integer part's lower 7 bits as their lowest bits: integers are put
// there, and what was added is subtracted, exactly.
inline constexpr uint32_t k128Pair = 0x43004300;

template <uint32_t kMask>
__device__ inline uint32_t PutInto128(uint32_t word) {
  return AndOr<kMask, k128Pair>(word);
}

// The first and third byte, two's complement, as a pair of bfloat16. The sign bit makes 128 into 256.
__device__ inline uint32_t PairOfInt8(uint32_t word) {
  return SubtractPairs(PutInto128<0x007F007F>(word), PutInto128<0x00800080>(word));
}
// The lowest 4 bits of either half, less 8, as a pair of bfloat16.
__device__ inline uint32_t PairOfInt4(uint32_t word) {
  return SubtractPairs(PutInto128<0x000F000F>(word), k128Pair + 0x00080008);
}

// The tile's weights as bfloat16, of thread `thread` of 128: a[k] for inputs 16 k to 16 k + 15.
template <WeightFormat kFormat>
__device__ inline void ReadTile(const char* tile, int thread, uint32_t (&a)[4][4]) {
  static_assert(kFormat != WeightFormat::kBF16);
  const auto* words = reinterpret_cast<const uint4*>(tile) + thread;
  const uint2 scales =
      reinterpret_cast<const uint2*>(tile + TileBytes(kFormat) - kTileScaleBytes)[thread / 4];
  const uint32_t of_group[2] = {scales.x, scales.y};
#pragma unroll
  for (int group = 0; group < 2; ++group) {
    const uint32_t d[2] = {__byte_perm(of_group[group], 0, 0x1010), __byte_perm(of_group[group], 0, 0x3232)};
    if constexpr (kFormat == WeightFormat::kInt8) {
      const uint4 four = words[128 * group];
      const uint32_t word[4] = {four.x, four.y, four.z, four.w};
#pragma unroll
      for (int i = 0; i < 4; ++i) {
        uint32_t* to = &a[2 * group + i / 2][2 * (i % 2)];
        to[0] = MultiplyPairs(PairOfInt8(word[i]), d[0]);
        to[1] = MultiplyPairs(PairOfInt8(word[i] >> 8), d[1]);
      }
    } else {
      const uint2 two = reinterpret_cast<const uint2*>(words)[group];
      const uint32_t word[2] = {two.x, two.y};
#pragma unroll
      for (int i = 0; i < 2; ++i) {
#pragma unroll
        for (int j = 0; j < 4; ++j) {
          a[2 * group + i][j] = MultiplyPairs(PairOfInt4(word[i] >> (4 * j)), d[j % 2]);
        }
      }
    }
  }
}

}  // namespace gatefold::cuda
