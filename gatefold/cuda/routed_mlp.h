#pragma once

#include <cuda_runtime_api.h>

#include <cstdint>

#include "gatefold/cuda/device_memory.h"
#include "gatefold/cuda/expert_mlp.h"
#include "gatefold/cuda/visit_plan.h"

namespace gatefold::cuda {

// The experts of a layer for rows whose routes are on the device: as ExpertMlp, bit for bit, but that the
// host does not know which expert has how many rows. Four launches: plan, gather, gate and up, down.
// Owns the memory that a batch works in, and grows it as batches do.
// Threads: one batch at a time, all on one stream.
class RoutedMlp {
 public:
  // All layers' experts have this shape and this number.
  RoutedMlp(const ExpertShape& shape, int n_experts, int top_k)
      : shape_(shape), n_experts_(n_experts), top_k_(top_k) {}
  RoutedMlp(const RoutedMlp&) = delete;
  RoutedMlp& operator=(const RoutedMlp&) = delete;

  // All of it device memory. experts: [n_experts]. routes: [n_rows, top_k], see PlanVisits.
  // x: float32 [n_rows, d_model]. y: float32 [n_rows, top_k, d_model]. n_visits: [n_experts], added to.
  // Asynchronous on `stream`, except that it waits for the stream where memory grows.
  cudaError_t Run(const DeviceExpert* experts, const int32_t* routes, int n_rows, const float* x, float* y,
                  uint64_t* n_visits, cudaStream_t stream);

  // Memory, and how the products are cut, for batches of n_rows. Run does it where it was not done.
  cudaError_t Prepare(int n_rows);

 private:
  cudaError_t Reserve(int n_groups, int64_t n_rows);

  const ExpertShape shape_;
  const int n_experts_, top_k_;
  // Of batches of prepared_rows_.
  int prepared_rows_ = 0;
  int64_t most_rows_ = 0;  // of all groups, padding included
  GroupedMatMul up_, down_;
  int capacity_groups_ = 0;
  int64_t capacity_rows_ = 0;
  DeviceMemory turns_;
  DeviceMemory plan_memory_;
  DeviceMemory activations_;  // of x, then of what lies between the products
  VisitPlan plan_;
};

}  // namespace gatefold::cuda
