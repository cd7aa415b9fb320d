#pragma once

// Matrices in shared memory as Hopper's warpgroup instruction finds them (PTX ISA, "Matrix
// Descriptor"): rows of 128 bytes, swizzled as tiles.h says (layout 1), groups of 8 rows 1024 bytes
// apart (stride byte offset 64 in units of 16), the whole aligned to 1024.

#include <cstdint>

#include "gatefold/cuda/tiles.h"

namespace gatefold::cuda::sm90 {

// shared: the address. leading: bytes to the next 64 columns of a matrix that lies with its rows
// along the sum; 16 where there is no such thing.
GATEFOLD_HOST_DEVICE inline uint64_t Descriptor(uint32_t shared, uint32_t leading) {
  return static_cast<uint64_t>((shared & 0x3ffff) >> 4) |
         static_cast<uint64_t>(leading >> 4) << 16 | 64ull << 32 | 1ull << 62;
}
// To the next 16 inputs of the same rows.
inline constexpr uint64_t kNextInputs = 32 >> 4;

}  // namespace gatefold::cuda::sm90
