#pragma once

#include "gatefold/cuda/grouped_matmul.h"

namespace gatefold::cuda {

inline constexpr int kNarrowUnitRows = 64;  // up to this: all units are alike
inline constexpr int kWideUnitStep = 32;

// How wide units are. Chosen by the largest group alone, and the same on all architectures.
struct UnitPlan {
  int rows;         // of a unit, at most
  bool pair;        // a unit takes both tiles of a pair; else one, so that few rows give enough units
};

inline UnitPlan PlanUnits(const TileShape& shape, Epilogue epilogue, int max_rows) {
  UnitPlan plan;
  plan.rows = max_rows <= 8 ? 8 : max_rows <= 16 ? 16 : max_rows <= 32 ? 32 : max_rows <= 64 ? 64 : 256;
  plan.pair = epilogue == Epilogue::kGatedActivations || plan.rows > kNarrowUnitRows;
  (void)shape;
  return plan;
}

// Rows of each unit of a group but its last. Units of one instruction's width have that many; wide
// ones are as even as their two halves of 16 rows and more allow, so that 270 rows are not 256 and 14,
// which would take as long as 512.
GATEFOLD_HOST_DEVICE inline int UnitRows(int most_rows, int n_rows) {
  if (most_rows <= kNarrowUnitRows) return most_rows;
  const int n_units = (n_rows + most_rows - 1) / most_rows;
  return n_units == 0 ? most_rows
                      : static_cast<int>(RoundUp((n_rows + n_units - 1) / n_units, kWideUnitStep));
}

// One of two: with Hopper's asynchronous copies and warpgroup instructions, or with what every device
// of compute capability 8.0 or more has. They are two numerics classes: never mix them in one answer.
cudaError_t LaunchSm90(const GroupedMatMul& work, int n_processors, cudaStream_t stream);
// Of one format, to be compiled beside the others.
cudaError_t LaunchInt8Sm90(const GroupedMatMul& work, int n_processors, cudaStream_t stream);
cudaError_t LaunchInt4Sm90(const GroupedMatMul& work, int n_processors, cudaStream_t stream);
cudaError_t LaunchSm80(const GroupedMatMul& work, cudaStream_t stream);

}  // namespace gatefold::cuda
