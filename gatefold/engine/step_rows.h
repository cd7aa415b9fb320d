#pragma once

#include <cstdint>
#include <memory>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/types/span.h"
#include "gatefold/base/thread_pool.h"
#include "gatefold/engine/expert_client.h"
#include "gatefold/engine/router_model.h"
#include "gatefold/engine/step.h"
#include "gatefold/engine/step_result.h"
#include "gatefold/tensor/dtype.h"

namespace gatefold {

// The rows of a lane's step between its two doors, and what a router computes of them: norm, gate,
// fold. They lie where the doors take them. In host memory; or, where attention and experts are on
// one device, in that device's memory (gatefold/engine/device_rows.h): then x(), h(), answers() and
// the routes are the device's, only doors to it may read them, and calls put work on its stream and
// wait for it in End() alone (but where memory grows). Both give the same bits.
// Threads: one at a time. Errors: Unavailable, the device failed.
class StepRows {
 public:
  virtual ~StepRows() = default;

  // Makes room for a step's rows. What is below is valid until the next one.
  virtual absl::Status Begin(int n_rows) = 0;
  // From here on time counts as this phase's.
  virtual void Enter(StepPhase phase) = 0;

  virtual float* x() = 0;        // [n_rows, d_model], the residual stream
  virtual const float* h() = 0;  // [n_rows, d_model], what experts see
  virtual float* answers() = 0;  // [n_rows, experts_per_row, d_model], unweighted
  virtual const Routes& routes() const = 0;
  uint8_t* served_by() { return served_by_.data(); }  // host: [n_rows, experts_per_row]

  // x as it crosses a wire.
  virtual absl::Status RoundX() = 0;
  // h = norm(x) and routes = gate(h); then h as it crosses a wire. Dense layers: all slices, each
  // with weight 1.
  virtual absl::Status NormAndGate(int layer) = 0;
  // x += the answers, as they cross a wire, times their weights, in ascending expert id.
  virtual absl::Status Fold(StepResult* result) = 0;
  // Adds the layer's routes to the result's trace, by End() at the latest.
  virtual absl::Status Record(int layer, StepResult* result) = 0;
  // Those rows of x, next to each other, as they cross a wire: [samples.size(), d_model].
  virtual absl::StatusOr<const float*> RowsOf(absl::Span<const SampleRequest> samples) = 0;
  // The step is over: fills in what the result still lacks.
  virtual absl::Status End(StepResult* result) = 0;

 protected:
  std::vector<uint8_t> served_by_;
};

// In host memory, computed by the pool. `wire_dtype`: the precision that rows have between
// services. The model and the pool outlive them.
std::unique_ptr<StepRows> MakeHostRows(const RouterModel* model, ThreadPool* pool,
                                       DType wire_dtype);

}  // namespace gatefold
