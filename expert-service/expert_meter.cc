#include "expert-service/expert_meter.h"

#include "absl/time/clock.h"

namespace gatefold {

absl::StatusOr<std::unique_ptr<ExpertMeter>> ExpertMeter::Create(const ExpertStore&,
                                                                 const ExpertServiceOptions&) {
  return std::make_unique<ExpertMeter>();
}
void ExpertMeter::OnLoaded(absl::Duration) {}
void ExpertMeter::OnCallStarted() { last_call_nanos_ = absl::GetCurrentTimeNanos(); }
void ExpertMeter::OnCall(int, int, absl::Duration, absl::Duration) {}
void ExpertMeter::OnCallDone(const CallRecord&) {}

}  // namespace gatefold
