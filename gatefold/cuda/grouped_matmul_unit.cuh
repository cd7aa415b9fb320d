#pragma once

// What the kernels of all architectures share: which unit a block works on, and what becomes of its
// sums. The tensor cores of every architecture leave 16 x 8 sums in a warp in the same way, so sums
// are named alike: of outputs 16 w .. 16 w + 15 (warp w of four), thread `lane` has in
//   sums[4 j + 0], [4 j + 1]   output lane / 4,     rows 8 j + 2 (lane % 4) and one more
//   sums[4 j + 2], [4 j + 3]   output lane / 4 + 8, the same rows

#include <cuda_bf16.h>

#include "gatefold/cuda/grouped_matmul_plan.h"
#include "gatefold/cuda/warp_ops.h"

namespace gatefold::cuda {

// One unit: a tile, or four, times `width` rows.
struct Unit {
  const MatMulGroup* group;
  int tile;       // along the outputs; the first of them
  int width;      // rows that are multiplied
  int first_row;  // within the group
  int n_rows;     // of those, at least 1: the last unit of a group may be less than full
};

// The unit of that number; false: there are fewer. Units lie outputs by outputs, so that blocks that work at
// the same time read the same weights.
__device__ inline bool FindUnit(const GroupedMatMul& work, int unit, Unit* found) {
  // Read anew each time: kept, they cost registers that the wide kernels do not have.
  const bool counted = work.counts != nullptr;
  if (unit >= (counted ? work.counts->n_units : work.n_units)) return false;
  const MatMulGroup* groups = work.groups;
  int low = 0, high = (counted ? work.counts->n_groups : work.n_groups) - 1;
  while (low < high) {  // the last group that starts at or before `unit`
    const int middle = (low + high + 1) / 2;
    if (groups[middle].first_unit <= unit) {
      low = middle;
    } else {
      high = middle - 1;
    }
  }
  const MatMulGroup* group = groups + low;
  const RowCut cut = CutRows(work.shape.format, work.unit_rows, group->n_rows);
  const int local = unit - group->first_unit;
  const int place = local / cut.n_units, part = local % cut.n_units;
  found->group = group;
  found->tile = place * (work.unit_rows > kNarrowUnitRows ? kWideUnitTiles : 1);
  found->width = cut.Width(part);
  found->first_row = cut.Begin(part);
  found->n_rows = min(found->width, group->n_rows - found->first_row);
  return true;
}

__device__ inline int RoundedRows(const MatMulGroup& group) {
  return (group.n_rows + kRowsAlign - 1) / kRowsAlign * kRowsAlign;
}

// Rows [first_row, ...) of input block `block` of a group's activations of `n_blocks` blocks.
__device__ inline const char* ActivationRows(const void* x, const MatMulGroup& group, int n_blocks,
                                             int block, int first_row) {
  return static_cast<const char*>(x) + group.first_row * n_blocks * 128 +
         (static_cast<int64_t>(block) * RoundedRows(group) + first_row) * 128;
}

// To a few units in the last place, which is more than the bfloat16 that it becomes can show.
__device__ inline float Silu(float z) { return __fdividef(z, 1.0f + __expf(-z)); }

// y[slot][out] = sum + bias of the 64 outputs of tile `tile`, for all rows of the unit.
template <int kSums>
__device__ inline void StoreSums(const GroupedMatMul& work, const Unit& unit, int tile, int warp, int lane,
                                 const float (&sums)[kSums]) {
  const int64_t first = static_cast<int64_t>(tile) * kTileRows + 16 * warp + lane / 4;
  const bool has[2] = {first < work.shape.n_out, first + 8 < work.shape.n_out};
  const float* const bias_from = unit.group->bias;
  float bias[2] = {0.0f, 0.0f};
#pragma unroll
  for (int half = 0; half < 2; ++half) {
    if (bias_from != nullptr && has[half]) bias[half] = bias_from[first + 8 * half];
  }
  const int packed = static_cast<int>(unit.group->first_row) + unit.first_row;
  // Address arithmetic that is one instruction: less than 4 GB from row to row.
  const auto y_row_bytes = static_cast<uint32_t>(work.y_stride * sizeof(float));
  char* const y = reinterpret_cast<char*>(work.y + first);
  // Where rows go is read for several at a time and before any is stored: else each waits for memory twice,
  // behind the one before, since for all the compiler knows that one changed it.
  constexpr int kEights = kSums / 4, kBatch = 4;
#pragma unroll
  for (int begin = 0; begin < kEights; begin += kBatch) {
    uint32_t slots[2 * kBatch];
#pragma unroll
    for (int i = 0; i < 2 * min(kBatch, kEights - begin); ++i) {
      const int row = min(8 * (begin + i / 2) + 2 * (lane % 4) + i % 2, unit.n_rows - 1);
      slots[i] = packed + row;
      if (work.slots != nullptr) slots[i] = work.slots[slots[i]];
    }
#pragma unroll
    for (int i = 0; i < 2 * min(kBatch, kEights - begin); ++i) {
      const int j = begin + i / 2;
      const bool is_row = 8 * j + 2 * (lane % 4) + i % 2 < unit.n_rows;
      auto* const to = reinterpret_cast<float*>(y + uint64_t{slots[i]} * y_row_bytes);
      if (is_row && has[0]) to[0] = sums[4 * j + i % 2] + bias[0];
      if (is_row && has[1]) to[8] = sums[4 * j + 2 + i % 2] + bias[1];
    }
  }
}

// Puts silu(gate) * up of the 32 outputs of tile `tile` of two matrices, as bfloat16, into shared memory:
// half a block of activations, as a following product reads it. `block`: its 128 bytes per row.
template <int kSums>
__device__ inline void GateToShared(const GroupedMatMul& work, const Unit& unit, int tile, int warp, int lane,
                                    const float (&sums)[kSums], char* block) {
  const int first = tile % 2 * (kTileRows / 2) + 8 * warp;  // of the block's inputs, the warp's eight
  const int64_t out = static_cast<int64_t>(tile / 2) * kTileInputs + first + lane / 4;
  float gate_bias = 0.0f, up_bias = 0.0f;
  if (out < work.shape.n_out) {
    if (unit.group->bias != nullptr) gate_bias = unit.group->bias[out];
    if (unit.group->bias2 != nullptr) up_bias = unit.group->bias2[out];
  }
  const auto gated = [&](int gate) { return Silu(sums[gate] + gate_bias) * (sums[gate + 2] + up_bias); };
#pragma unroll
  for (int j = 0; j < kSums / 4; ++j) {
    // A thread has one input of two rows. Turned, it has two inputs of one, which lie together.
    const uint32_t pair = Transposed(PackBF16(gated(4 * j), gated(4 * j + 1)));
    *reinterpret_cast<uint32_t*>(block + SwizzledOffset(8 * j + lane / 4, first + 2 * (lane % 4))) = pair;
  }
}

// Copies that half of a block to the unit's activations, all rows (rounded up to 8). `thread` of 128.
__device__ inline void SharedToActivations(const GroupedMatMul& work, const Unit& unit, int tile, int thread,
                                           const char* block) {
  const int n_blocks = static_cast<int>(RoundUp(work.shape.n_out, kInputsAlign) / kTileInputs);
  char* to = const_cast<char*>(
      ActivationRows(work.activations, *unit.group, n_blocks, tile / 2, unit.first_row));
  const int chunks = (unit.n_rows + kRowsAlign - 1) / kRowsAlign * kRowsAlign * 4;
  for (int i = thread; i < chunks; i += 128) {
    const int64_t at = SwizzledOffset(i / 4, tile % 2 * (kTileRows / 2) + i % 4 * 8);
    *reinterpret_cast<uint4*>(to + at) = *reinterpret_cast<const uint4*>(block + at);
  }
}

}  // namespace gatefold::cuda
