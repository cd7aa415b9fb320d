#pragma once

#include <grpcpp/completion_queue.h>

#include "absl/status/statusor.h"
#include "absl/strings/string_view.h"
#include "absl/time/time.h"

namespace gatefold {

// How a thread waits for its completion queue. Spinning saves the 40 to 80 microseconds of a
// wake-up and costs a core; with fewer free cores than spinning threads it costs milliseconds.
struct WaitPolicy {
  absl::Duration spin = absl::ZeroDuration();  // before blocking; InfiniteDuration: never block

  static WaitPolicy Block() { return {}; }
  static WaitPolicy Spin() { return {absl::InfiniteDuration()}; }
};

// "block", "spin" or "hybrid:50us" (spin that long, then block).
absl::StatusOr<WaitPolicy> ParseWaitPolicy(absl::string_view text);

enum class WaitResult { kEvent, kTimeout, kShutdown };

// Next completion of `queue`, as CompletionQueue::AsyncNext.
WaitResult WaitForEvent(grpc::CompletionQueue* queue, const WaitPolicy& policy, absl::Time deadline,
                        void** tag, bool* ok);

}  // namespace gatefold
