#pragma once

#include <cstdint>

#include "absl/status/status.h"
#include "absl/time/time.h"
#include "gatefold/engine/step_result.h"
#include "router-service/scheduler/sequence.h"

namespace gatefold {

// What a lane tells the log of steps that fail and of requests that wait: what lasts is told now
// and then, not each time.
// Threads: the lane's.
class LaneLog {
 public:
  explicit LaneLog(int lane) : lane_(lane) {}

  // A step that was part of a trace was computed in that time: at level debug, with its phases.
  void StepDone(const Step& step, const StepResult& result, absl::Duration time);
  // A step failed for so many sequences. One that fails like the last is told once a second.
  void StepFailed(uint64_t step, const absl::Status& status, int n_sequences, absl::Time now);
  // So many requests wait for an expert, `oldest` for longest; it is null where none does.
  void WaitsForExpert(int n_requests, const Sequence* oldest, absl::Time now);
  // No service takes a sequence, from now on.
  void WaitsForAttention(const absl::Status& why);

 private:
  const int lane_;
  absl::Status failure_told_;  // the last that was logged
  absl::Time next_failure_ = absl::InfinitePast();
  int n_failures_untold_ = 0;  // since then
  bool waits_for_expert_ = false;
  absl::Time next_wait_ = absl::InfinitePast();
};

}  // namespace gatefold
