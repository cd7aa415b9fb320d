#pragma once

#include <cuda_runtime_api.h>

#include <cstdint>

#include "gatefold/cuda/expert_mlp.h"
#include "gatefold/cuda/grouped_matmul.h"

namespace gatefold::cuda {

// Which rows visit which expert, found out on the device. Device memory, filled by PlanVisits.
struct VisitPlan {
  MatMulGroup* up = nullptr;  // [work.n_groups]: of the experts that are visited, those with the widest units of `down` first
  MatMulGroup* down = nullptr;
  GroupCounts* up_counts = nullptr;
  GroupCounts* down_counts = nullptr;
  int32_t* sources = nullptr;  // by row of all groups: the row of x; -1: padding
  int32_t* slots = nullptr;    // by row of all groups: the row of y
};

inline constexpr int kMaxVisitExperts = 8192;

// The visits of a layer's experts: row r goes to routes[r, 0 .. top_k), all different, and answer k of it
// to row r * top_k + k of y. Rows of a group are in ascending order.
//   experts  device, [n_experts]
//   routes   device, [n_rows, top_k], within [0, n_experts)
//   up, down: whose unit_rows and shapes are set (see ExpectUnits)
//   n_visits device, [n_experts]: the counts are added to it
// Asynchronous on `stream`. Errors: cudaErrorInvalidValue for a null pointer, more than kMaxVisitExperts or
// about 2^31 routes; else what the launch returned.
cudaError_t PlanVisits(const DeviceExpert* experts, int n_experts, const int32_t* routes, int64_t n_rows,
                       int top_k, const GroupedMatMul& up, const GroupedMatMul& down, const VisitPlan& plan,
                       uint64_t* n_visits, cudaStream_t stream);

}  // namespace gatefold::cuda
