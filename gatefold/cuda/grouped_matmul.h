#pragma once

#include <cuda_runtime.h>

#include <cstdint>

#include "gatefold/cuda/tiles.h"

namespace gatefold::cuda {

// Rows that are multiplied with one matrix.
struct MatMulGroup {
  const void* weights;  // tiles
  const float* bias;    // [n_out], or null
  const float* bias2;   // of the second matrix of two
  int64_t first_row;    // of its rows among all groups' rows (below 2^31), each group's count rounded up to 8
  int32_t n_rows;
  int32_t first_unit;   // see AssignUnits
};

// How much there is to do, counted on the device (see visit_plan.h): on the host it is not known then.
struct GroupCounts {
  int32_t n_groups;
  int32_t n_units;
  int32_t n_rows;  // padding included
};

// How far the blocks of a product of wide units are, which take turns. Zero before it and after it; on one
// stream one after the other products may share it.
struct UnitTurns {
  int32_t n_taken = 0;  // beside each cluster's first
  int32_t n_ended = 0;  // clusters that found no more
};

enum class Epilogue {
  // y[slots[row]][out] = sum + bias, float32. slots: by first_row + row of the group.
  kStore,
  // Two matrices: silu(gate) * up as bfloat16 activations for a following product.
  kGatedActivations,
};

// Less than 4 GB from row to row, which makes an address one instruction.
inline constexpr int64_t kMaxYStride = int64_t{1} << 30;

// y = W x for all groups in one launch, whatever their number and sizes: the work is cut into units
// of (outputs, rows) over which the multiprocessors take turns, and nothing is padded but the last
// unit of a group.
//
// The row law: a result is one chain of sums over the inputs, in ascending steps of 16, by one kind of
// tensor core instruction, in one accumulator. How many rows a unit has (8 to 256, by the largest
// group, or the largest to be expected) chooses how wide the instruction is, not what it adds up, and in
// which order. tests/gpu/grouped_matmul_test.cc compares the bits.
struct GroupedMatMul {
  TileShape shape;
  Epilogue epilogue = Epilogue::kStore;
  const MatMulGroup* groups = nullptr;  // device, [n_groups]
  int n_groups = 0;
  int unit_rows = 0;    // most rows of a unit, see AssignUnits
  int n_units = 0;      // of all groups
  const GroupCounts* counts = nullptr;  // device; not null: n_groups and n_units are the most there may be
  UnitTurns* turns = nullptr;       // device
  const void* x = nullptr;          // activations, groups one after another
  void* activations = nullptr;      // kGatedActivations: [rows, n_out], groups one after another
  float* y = nullptr;               // kStore: [slots, y_stride]
  const int32_t* slots = nullptr;   // kStore: device, by (rounded) row; null: the row itself
  int64_t y_stride = 0;             // kStore: in floats, below kMaxYStride
};

// Fills first_row and first_unit of host `groups`, for work.shape and the groups' n_rows, and unit_rows,
// n_units and n_groups of `work`. Returns the number of rows, padding included.
int64_t AssignUnits(MatMulGroup* groups, int n_groups, GroupedMatMul* work);

// Where the groups are counted on the device: fills in unit_rows for n_rows rows that visit top_k of
// n_experts groups each, in all likelihood about as many in each; and n_groups and n_units, the most there
// may be. Returns the most rows, padding included.
int64_t ExpectUnits(int n_rows, int top_k, int n_experts, GroupedMatMul* work);

// Asynchronous on `stream`. cudaErrorInvalidValue for shapes that do not fit together;
// cudaErrorNoKernelImageForDevice below compute capability 8.0.
cudaError_t Launch(const GroupedMatMul& work, cudaStream_t stream);

// Gathers float32 rows as activations of groups, rounded to the nearest bfloat16.
//   x        device, float32 [*, n_in]
//   sources  device, [n_rows], by (rounded) row: which row of x; negative: padding, zeros
//   counts   device: n_groups and n_rows are the most there may be; or null
cudaError_t GatherActivations(const float* x, const int32_t* sources, const MatMulGroup* groups,
                              int n_groups, int64_t n_rows, int64_t n_in, void* activations,
                              cudaStream_t stream, const GroupCounts* counts = nullptr);

}  // namespace gatefold::cuda
