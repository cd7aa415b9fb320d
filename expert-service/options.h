#pragma once

#include <cstdint>
#include <string>

#include "absl/status/status.h"
#include "absl/time/time.h"
#include "gatefold/worker/worker.h"

namespace gatefold {

struct ExpertServiceOptions {
  WorkerOptions worker;
  std::string backend = "auto"; // where experts are computed: auto, cpu or cuda; see expert_backend.h
  std::string experts = "all";  // see expert_selection.h
  uint64_t capacity_bytes = 0;  // most bytes of experts a planner may assign; 0: not limited
  bool metrics_per_expert = false;  // a series per expert held
  std::string wait = "block";   // of the thread that polls the network; see wait_policy.h
  // After SIGTERM: how long calls may still come from routers that have not noticed.
  absl::Duration drain_quiet = absl::Seconds(2);
  absl::Duration drain_limit = absl::Seconds(30);

  absl::Status Validate() const { return worker.Validate(); }
};

}  // namespace gatefold
