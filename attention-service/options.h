#pragma once

#include <string>

#include "absl/status/status.h"
#include "absl/time/time.h"
#include "attention-service/attention_host.h"
#include "gatefold/worker/worker.h"

namespace gatefold {

struct AttentionServiceOptions {
  WorkerOptions worker;
  AttentionHostOptions host;
  std::string wait = "block";  // of the thread that polls the network; see wait_policy.h
  // After SIGTERM: how long sequences may still go on.
  absl::Duration drain_limit = absl::Seconds(30);

  absl::Status Validate() const { return worker.Validate(); }
};

}  // namespace gatefold
