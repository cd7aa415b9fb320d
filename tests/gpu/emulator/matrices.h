#pragma once

// How tensor cores' operands lie in registers and in shared memory (PTX ISA, "Warp Level Matrix
// Instructions", "Asynchronous Warpgroup Level Matrix Instructions"), and their product.

#include <cstdint>

#include "tests/gpu/emulator/device.h"

namespace gatefold::cuda::emulator {

inline constexpr int kMostColumns = 256;

// sums[16, n] += a[16, 16] b[16, n], in ascending order of the 16.
void MultiplyAddMatrices(const float* a, const float* b, int n, float* sums);

// A lane's part of the left operand a[16, 16], four registers, and of sums[16, n], n / 2 of them.
void SpreadLeft(const uint32_t* registers, int lane, float* a);
void GatherSums(const float* of_thread, int lane, int n, float* sums);
void SpreadSums(const float* sums, int lane, int n, float* of_thread);

// Operands in shared memory, 128 bytes a row, swizzled: rows first_row to first_row + 15 of the
// left one as a[16, 16], the right one as b[16, n]; transposed: it lies so.
void ReadLeft(const Block& block, uint64_t descriptor, int first_row, float* a);
void ReadRight(const Block& block, uint64_t descriptor, int n, bool transposed, float* b);

}  // namespace gatefold::cuda::emulator
