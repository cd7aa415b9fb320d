#pragma once

#include "gatefold/cuda/grouped_matmul.h"

namespace gatefold::cuda {

// Units of at most this many rows have one tile of outputs, so that few rows give enough units, and all
// the same width. Wider ones have four, two for each of two blocks.
inline constexpr int kNarrowUnitRows = 64;
inline constexpr int kWideUnitTiles = 4;

// The widths of wide units: `step`, 2 * step, ... `most`. Each is code of its own, which the compiler must
// find registers for; quantised weights take some of them. unit_rows is `most` or `fewer`: with fewer rows
// more stages of copies are under way.
struct WideUnits {
  int step, fewer, most;
};
GATEFOLD_HOST_DEVICE constexpr WideUnits WideUnitsOf(WeightFormat format) {
  return format == WeightFormat::kBF16 ? WideUnits{16, 128, 256} : WideUnits{64, 128, 192};
}

// How the rows of a group are cut into units: the first n_wider ones have `step` rows more than `width`,
// and together they are the group's rows rounded up to a step, so that 270 rows are 144 and 128 and not 256
// and 14, which would take as long as 512. Narrow units are all alike; the last may be less than full.
struct RowCut {
  int n_units, width, n_wider, step;

  GATEFOLD_HOST_DEVICE int Width(int unit) const { return width + (unit < n_wider ? step : 0); }
  GATEFOLD_HOST_DEVICE int Begin(int unit) const {
    return unit * width + (unit < n_wider ? unit : n_wider) * step;
  }
};
GATEFOLD_HOST_DEVICE inline RowCut CutRows(WeightFormat format, int most_rows, int n_rows) {
  const int n_units = (n_rows + most_rows - 1) / most_rows;
  if (most_rows <= kNarrowUnitRows || n_units == 0) return {n_units, most_rows, 0, 0};
  const int step = WideUnitsOf(format).step, n_steps = (n_rows + step - 1) / step;
  return {n_units, n_steps / n_units * step, n_steps % n_units, step};
}

// The greatest width of a group's units. Groups are best multiplied in descending order of it: processors
// that end with small units end about together.
GATEFOLD_HOST_DEVICE inline int WidestUnit(WeightFormat format, int most_rows, int n_rows) {
  return CutRows(format, most_rows, n_rows).Width(0);
}

// Places along the outputs: each has all of a group's cuts.
GATEFOLD_HOST_DEVICE inline int UnitPlaces(const TileShape& shape, int most_rows) {
  const int n_tiles = most_rows > kNarrowUnitRows ? kWideUnitTiles : 1;
  return (shape.n_tiles() + n_tiles - 1) / n_tiles;
}

// One of two: with Hopper's asynchronous copies and warpgroup instructions, or with what every device
// of compute capability 8.0 or more has. They are two numerics classes: never mix them in one answer.
cudaError_t LaunchSm90(const GroupedMatMul& work, int n_processors, cudaStream_t stream);
// Of one format, to be compiled beside the others.
cudaError_t LaunchInt8Sm90(const GroupedMatMul& work, int n_processors, cudaStream_t stream);
cudaError_t LaunchInt4Sm90(const GroupedMatMul& work, int n_processors, cudaStream_t stream);
cudaError_t LaunchSm80(const GroupedMatMul& work, cudaStream_t stream);

}  // namespace gatefold::cuda
