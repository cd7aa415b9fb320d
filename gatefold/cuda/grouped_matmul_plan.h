#pragma once

#include "gatefold/cuda/grouped_matmul.h"

namespace gatefold::cuda {

// How wide a unit is. Chosen by the largest group alone, and the same on all architectures.
struct UnitPlan {
  int rows;         // of a unit
  bool pair;        // a unit takes both tiles of a pair; else one, so that few rows give enough units
};

inline UnitPlan PlanUnits(const TileShape& shape, Epilogue epilogue, int max_rows) {
  UnitPlan plan;
  plan.rows = max_rows <= 8 ? 8 : max_rows <= 16 ? 16 : max_rows <= 32 ? 32 : max_rows <= 64 ? 64 : 256;
  plan.pair = epilogue == Epilogue::kGatedActivations || plan.rows > 64;
  (void)shape;
  return plan;
}

// One of two: with Hopper's asynchronous copies and warpgroup instructions, or with what every device
// of compute capability 8.0 or more has. They are two numerics classes: never mix them in one answer.
cudaError_t LaunchSm90(const GroupedMatMul& work, int n_processors, cudaStream_t stream);
cudaError_t LaunchSm80(const GroupedMatMul& work, cudaStream_t stream);

}  // namespace gatefold::cuda
