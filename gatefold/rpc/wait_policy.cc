#include "gatefold/rpc/wait_policy.h"

#include <grpc/support/time.h>

#include <algorithm>

#include "absl/strings/str_cat.h"
#include "absl/time/clock.h"

namespace gatefold {
namespace {

constexpr absl::Duration kMaxSpin = absl::Seconds(1);
constexpr char kHybridPrefix[] = "hybrid:";

gpr_timespec GprTime(absl::Time time) {
  if (time == absl::InfiniteFuture()) return gpr_inf_future(GPR_CLOCK_REALTIME);
  const timespec ts = absl::ToTimespec(time);
  gpr_timespec result;
  result.tv_sec = ts.tv_sec;
  result.tv_nsec = static_cast<int32_t>(ts.tv_nsec);
  result.clock_type = GPR_CLOCK_REALTIME;
  return result;
}

// True if it got an event or the end of the queue.
bool Poll(grpc::CompletionQueue* queue, void** tag, bool* ok, WaitResult* result) {
  // This very value polls; a zero timespan would block for a millisecond.
  switch (queue->AsyncNext(tag, ok, gpr_time_0(GPR_CLOCK_MONOTONIC))) {
    case grpc::CompletionQueue::GOT_EVENT:
      *result = WaitResult::kEvent;
      return true;
    case grpc::CompletionQueue::SHUTDOWN:
      *result = WaitResult::kShutdown;
      return true;
    case grpc::CompletionQueue::TIMEOUT:
      return false;
  }
  return false;
}

}  // namespace

absl::StatusOr<WaitPolicy> ParseWaitPolicy(absl::string_view text) {
  if (text == "block") return WaitPolicy::Block();
  if (text == "spin") return WaitPolicy::Spin();
  absl::Duration spin;
  if (text.substr(0, sizeof kHybridPrefix - 1) == kHybridPrefix &&
      absl::ParseDuration(text.substr(sizeof kHybridPrefix - 1), &spin) &&
      spin > absl::ZeroDuration() && spin <= kMaxSpin) {
    return WaitPolicy{spin};
  }
  return absl::InvalidArgumentError(
      absl::StrCat("wait policy \"", text,
                   "\": want block, spin or hybrid:DURATION with a duration of at most 1s, as "
                   "hybrid:50us"));
}

WaitResult WaitForEvent(grpc::CompletionQueue* queue, const WaitPolicy& policy, absl::Time deadline,
                        void** tag, bool* ok) {
  WaitResult result;
  if (policy.spin > absl::ZeroDuration()) {
    const absl::Time end = std::min(deadline, absl::Now() + policy.spin);
    do {
      if (Poll(queue, tag, ok, &result)) return result;
    } while (absl::Now() < end);
    if (end == deadline) return WaitResult::kTimeout;
  }
  switch (queue->AsyncNext(tag, ok, GprTime(deadline))) {
    case grpc::CompletionQueue::GOT_EVENT:
      return WaitResult::kEvent;
    case grpc::CompletionQueue::SHUTDOWN:
      return WaitResult::kShutdown;
    default:
      return WaitResult::kTimeout;
  }
}

}  // namespace gatefold
