#pragma once

#include <cstdint>
#include <string>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/time/time.h"
#include "gatefold/base/thread_pool.h"
#include "gatefold/engine/attention_client.h"
#include "gatefold/engine/expert_client.h"
#include "gatefold/engine/router_model.h"
#include "gatefold/engine/step.h"
#include "gatefold/tensor/buffer.h"
#include "gatefold/tensor/dtype.h"

namespace gatefold {

// Parts of a step's time, as gatefold_step_seconds{phase} reports them.
enum class StepPhase { kAttention, kGate, kExperts, kFold, kSample };
constexpr int kStepPhases = 5;
const char* StepPhaseName(StepPhase phase);

// Where the rows of one sparse layer went. Entries [row, k], heaviest first in k.
struct LayerTrace {
  int layer = 0;
  std::vector<uint16_t> experts;
  std::vector<float> weights;
  std::vector<uint8_t> served_by;
};

struct StepResult {
  int n_rows = 0;
  std::vector<Sampled> sampled;   // one per step.samples entry
  std::vector<LayerTrace> trace;  // if step.want_trace; sparse layers only
  // By row: whether it was computed without one of its experts somewhere. Empty: none was.
  std::vector<bool> degraded;
  absl::Duration phase_time[kStepPhases];
};

// Walks one lane's steps through the layers. Owns the lane's activations. Threads: one at a time.
class StepLoop {
 public:
  // The clients, the model and the pool outlive the loop. `wire_dtype` is the precision hidden
  // states have between services: rounding happens here, in every deployment, so that the
  // deployment never shows in the numbers.
  StepLoop(const RouterModel* model, AttentionClient* attention, ExpertClient* experts,
           ThreadPool* pool, DType wire_dtype);

  // Errors: those of the two clients. A failed step may be run again: attention writes the same
  // keys and values at the same positions.
  absl::StatusOr<StepResult> Run(const Step& step);

 private:
  class PhaseTimer;

  absl::Status FeedForward(const Step& step, int layer, StepResult* result);
  void Gate(int layer, int n_rows);
  void SortByExpert();
  void Renormalise(StepResult* result);
  absl::Status Sample(const Step& step, StepResult* result);
  void RoundToWire(float* values, size_t n) const;
  void Reserve(int n_rows);
  void Record(int layer, StepResult* result) const;

  const RouterModel* const model_;
  AttentionClient* const attention_;
  ExpertClient* const experts_;
  ThreadPool* const pool_;
  const DType wire_dtype_;

  int capacity_rows_ = 0;
  Buffer x_;        // [rows, d_model] residual stream
  Buffer h_;        // [rows, d_model] normalised, what experts see
  Buffer logits_;   // [rows, n_experts]
  Buffer answers_;  // [rows, top_k or n_slices, d_model]
  Routes routes_;
  std::vector<uint8_t> served_by_;
};

}  // namespace gatefold
