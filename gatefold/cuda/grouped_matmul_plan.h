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
  return format == WeightFormat::kBF16 ? WideUnits{32, 128, 256} : WideUnits{64, 128, 192};
}

// Rows of each unit of a group but its last: wide units are as even as steps allow, so that 270 rows are
// not 256 and 14, which would take as long as 512.
GATEFOLD_HOST_DEVICE inline int UnitRows(WeightFormat format, int most_rows, int n_rows) {
  if (most_rows <= kNarrowUnitRows) return most_rows;
  const int n_units = (n_rows + most_rows - 1) / most_rows;
  return n_units == 0 ? most_rows
                      : static_cast<int>(RoundUp((n_rows + n_units - 1) / n_units, WideUnitsOf(format).step));
}

// Row units of a group of n_rows, and how many places along the outputs each of them has.
GATEFOLD_HOST_DEVICE inline int RowUnits(WeightFormat format, int most_rows, int n_rows) {
  const int width = UnitRows(format, most_rows, n_rows);
  return (n_rows + width - 1) / width;
}
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
