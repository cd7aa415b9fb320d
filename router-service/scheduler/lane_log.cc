#include "router-service/scheduler/lane_log.h"

#include <utility>

#include "gatefold/base/log.h"

namespace gatefold {
namespace {

constexpr absl::Duration kWaitInterval = absl::Seconds(5);
constexpr absl::Duration kFailureInterval = absl::Seconds(1);

}  // namespace

void LaneLog::StepDone(const Step& step, const StepResult& result, absl::Duration time) {
  if (step.traceparent.empty() || !IsLogged(LogLevel::kDebug)) return;
  const auto us = [&result](StepPhase phase) {
    return absl::ToDoubleMicroseconds(result.phase_time[static_cast<int>(phase)]);
  };
  LogEvent(LogLevel::kDebug, "step_done",
           {{"traceparent", step.traceparent},
            {"lane", lane_},
            {"step", step.id},
            {"rows", step.n_rows()},
            {"us", absl::ToDoubleMicroseconds(time)},
            {"attention_us", us(StepPhase::kAttention)},
            {"gate_us", us(StepPhase::kGate)},
            {"experts_us", us(StepPhase::kExperts)},
            {"fold_us", us(StepPhase::kFold)},
            {"sample_us", us(StepPhase::kSample)}});
}

void LaneLog::StepFailed(uint64_t step, const absl::Status& status, int n_sequences,
                         absl::Time now) {
  const bool as_before =
      status.code() == failure_told_.code() && status.message() == failure_told_.message();
  if (as_before && now < next_failure_) {
    ++n_failures_untold_;
    return;
  }
  LogEvent(LogLevel::kWarning, "step_failed",
           {{"lane", lane_},
            {"step", step},
            {"sequences", n_sequences},
            {"untold", n_failures_untold_},
            {"code", absl::StatusCodeToString(status.code())},
            {"error", status.message()}});
  failure_told_ = status;
  next_failure_ = now + kFailureInterval;
  n_failures_untold_ = 0;
}

void LaneLog::WaitsForExpert(int n_requests, const Sequence* oldest, absl::Time now) {
  if (n_requests == 0) {
    if (!std::exchange(waits_for_expert_, false)) return;
    LogEvent(LogLevel::kInfo, "expert_wait_over", {{"lane", lane_}});
    next_wait_ = absl::InfinitePast();
    return;
  }
  waits_for_expert_ = true;
  if (now < next_wait_) return;
  next_wait_ = now + kWaitInterval;
  const Sequence::Hold& hold = oldest->hold;
  const MissingExpert& first = hold.lacks.front();
  LogEvent(LogLevel::kWarning, "waiting_for_expert",
           {{"lane", lane_},
            {"requests", n_requests},
            {"layer", first.layer},
            {"expert", first.expert},
            {"request_id", oldest->request_id()},
            {"since_seconds", absl::ToDoubleSeconds(now - hold.since)},
            {"reason", hold.why.message()}});
}

void LaneLog::WaitsForAttention(const absl::Status& why) {
  LogEvent(LogLevel::kWarning, "waiting_for_attention",
           {{"lane", lane_}, {"reason", why.message()}});
}

}  // namespace gatefold
