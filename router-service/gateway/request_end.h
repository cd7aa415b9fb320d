#pragma once

#include <string>

#include "absl/status/status.h"
#include "absl/time/time.h"
#include "gatefold/inference/v1/inference.pb.h"
#include "router-service/gateway/gateway_observer.h"
#include "router-service/scheduler/generation.h"

namespace gatefold {

// What the caller is told of a generation that ended with kError or kCancelled: never OK, and never
// a code that blames the caller for something found wrong after the request was accepted.
absl::Status OutcomeOf(const GenerationEnd& end);

// kDeadlineExceeded once the deadline has passed.
absl::Status CheckTimeLeft(absl::Time now, absl::Time deadline);

// How a request ended whose caller is gone: with its deadline, or before it.
absl::Status CallerLeft(absl::Time now, absl::Time deadline);

// What operators may know of why a request ended. What was wrong with it is its caller's news, and
// may quote it: of that only the reason. What we did wrong is told whole.
std::string ReasonToKeep(const absl::Status& status);

// Logs how a request went, and tells the observer, which may be null.
void ReportEnd(const RequestReport& report, GatewayObserver* observer);

struct GenerationTimings {
  absl::Time arrival, first_step, first_token, last_token;  // InfinitePast: did not happen
};

// Spans between what happened; a span is unset if one of its ends did not happen.
inference::v1::Timings ToProto(const GenerationTimings& timings);

}  // namespace gatefold
