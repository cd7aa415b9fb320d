#include "router-service/gateway/request_end.h"

#include <algorithm>

#include "absl/strings/str_cat.h"
#include "gatefold/base/errors.h"
#include "gatefold/base/log.h"
#include "gatefold/rpc/proto_time.h"

namespace gatefold {
namespace {

void SetSpan(absl::Time from, absl::Time to,
             google::protobuf::Duration* (*field)(inference::v1::Timings*),
             inference::v1::Timings* timings) {
  if (from == absl::InfinitePast() || to == absl::InfinitePast()) return;
  *field(timings) = ToProto(std::max(absl::ZeroDuration(), to - from));
}

}  // namespace

absl::Status OutcomeOf(const GenerationEnd& end) {
  switch (end.status.code()) {
    case absl::StatusCode::kUnavailable:
    case absl::StatusCode::kInternal:
    case absl::StatusCode::kDeadlineExceeded:
    case absl::StatusCode::kResourceExhausted:
    case absl::StatusCode::kFailedPrecondition:
    case absl::StatusCode::kCancelled:
      return end.status;
    case absl::StatusCode::kOk:
      return absl::InternalError("the generation ended without saying why");
    default:
      return absl::InternalError(absl::StrCat("the generation failed: ", end.status.message()));
  }
}

absl::Status CheckTimeLeft(absl::Time now, absl::Time deadline) {
  if (now < deadline) return absl::OkStatus();
  return absl::DeadlineExceededError("the deadline passed before the request was submitted");
}

bool IsOurFault(const absl::Status& status) {
  return absl::IsInternal(status) || absl::IsUnavailable(status) ||
         absl::IsFailedPrecondition(status);
}

absl::Status CallerLeft(absl::Time now, absl::Time deadline) {
  if (now < deadline) return absl::CancelledError("the caller left");
  return absl::DeadlineExceededError("the deadline passed");
}

std::string ReasonToKeep(const absl::Status& status) {
  return IsOurFault(status) ? std::string(status.message()) : ReasonOf(status);
}

void ReportEnd(const RequestReport& report, GatewayObserver* observer) {
  LogEvent(IsOurFault(report.status) ? LogLevel::kWarning : LogLevel::kInfo, "request_ended",
           {{"request_id", report.request_id.empty() ? report.refused_id : report.request_id},
            {"caller", report.caller},
            {"traceparent", report.traceparent},
            {"kind", report.kind == RequestKind::kScore ? "score" : "generate"},
            {"outcome", absl::StatusCodeToString(report.status.code())},
            {"prompt_tokens", report.n_prompt_tokens},
            {"cached_tokens", report.n_cached_tokens},
            {"output_tokens", report.n_output_tokens},
            {"truncated_tokens", report.n_truncated_tokens},
            {"degraded_tokens", report.n_degraded_tokens},
            {"mixed_numerics", report.mixed_numerics ? "yes" : "no"},
            {"topology_version", report.topology_version},
            {"seconds", absl::ToDoubleSeconds(report.end_to_end)},
            {"reason", ReasonToKeep(report.status)}});
  if (observer != nullptr) observer->OnRequestEnded(report);
}

inference::v1::Timings ToProto(const GenerationTimings& t) {
  inference::v1::Timings timings;
  using T = inference::v1::Timings;
  SetSpan(
      t.arrival, t.first_step, [](T* p) { return p->mutable_queue(); }, &timings);
  SetSpan(
      t.first_step, t.first_token, [](T* p) { return p->mutable_prefill(); }, &timings);
  SetSpan(
      t.arrival, t.first_token, [](T* p) { return p->mutable_first_token(); }, &timings);
  SetSpan(
      t.first_token, t.last_token, [](T* p) { return p->mutable_decode(); }, &timings);
  return timings;
}

}  // namespace gatefold
