#include "router-service/router_meter.h"

namespace gatefold {

absl::StatusOr<std::unique_ptr<RouterMeter>> RouterMeter::Create(const RouterOptions&) {
  return std::make_unique<RouterMeter>();
}
void RouterMeter::Watch(const Directory*, const DispatchCounters*) {}
void RouterMeter::OnRequestStarted(RequestKind) {}
void RouterMeter::OnRequestEnded(const RequestReport&) {}
void RouterMeter::OnFirstToken(absl::Duration) {}
void RouterMeter::OnNextToken(absl::Duration) {}
void RouterMeter::OnStep(const Step&, const StepResult&, absl::Duration) {}
void RouterMeter::OnStepFailed(const absl::Status&) {}
void RouterMeter::OnCallDone(const CallRecord&) {}

}  // namespace gatefold
