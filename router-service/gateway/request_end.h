#pragma once

#include "absl/status/status.h"
#include "absl/time/time.h"
#include "gatefold/inference/v1/inference.pb.h"
#include "google/protobuf/duration.pb.h"
#include "google/protobuf/timestamp.pb.h"
#include "router-service/gateway/gateway_observer.h"
#include "router-service/scheduler/generation.h"

namespace gatefold {

// What the caller is told of a generation that ended with kError or kCancelled: never OK, and never
// a code that blames the caller for something found wrong after the request was accepted.
absl::Status OutcomeOf(const GenerationEnd& end);

// kDeadlineExceeded once the deadline has passed.
absl::Status CheckTimeLeft(absl::Time now, absl::Time deadline);

// Logs how a request went, and tells the observer, which may be null.
void ReportEnd(const RequestReport& report, GatewayObserver* observer);

google::protobuf::Timestamp ToProto(absl::Time time);
google::protobuf::Duration ToProto(absl::Duration span);  // finite

// Spans between what happened; a span is unset if one of its ends did not happen.
inference::v1::Timings ToProto(const GenerationTimings& timings);

}  // namespace gatefold
