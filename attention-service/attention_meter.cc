#include "attention-service/attention_meter.h"

namespace gatefold {

absl::StatusOr<std::unique_ptr<AttentionMeter>> AttentionMeter::Create(
    const KvBlockPool&, const AttentionServiceOptions&) {
  return std::make_unique<AttentionMeter>();
}
void AttentionMeter::Watch(std::function<int()>) {}
void AttentionMeter::OnCall(int, absl::Duration, absl::Duration) {}
void AttentionMeter::OnCallDone(const CallRecord&) {}

}  // namespace gatefold
