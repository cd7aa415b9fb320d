#pragma once

#include <cstdint>
#include <vector>

#include "absl/time/time.h"
#include "gatefold/engine/step.h"

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

}  // namespace gatefold
