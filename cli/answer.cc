#include "cli/answer.h"

#include <memory>
#include <utility>

#include "absl/strings/ascii.h"
#include "absl/strings/strip.h"
#include "gatefold/base/status_macros.h"

namespace gatefold::cli {
namespace {

using inference::v1::StreamGenerateTextRequest;
using inference::v1::StreamGenerateTextResponse;

absl::Status Note(const StreamGenerateTextResponse& response, const OnDelta& on_delta,
                  Answer* answer) {
  switch (response.event_case()) {
    case StreamGenerateTextResponse::kStarted:
      return answer->routing.Add(response.started().prompt().routing_trace());
    case StreamGenerateTextResponse::kDelta: {
      const StreamGenerateTextResponse::Delta& delta = response.delta();
      answer->text += delta.text();
      answer->token_ids.insert(answer->token_ids.end(), delta.token_ids().begin(),
                               delta.token_ids().end());
      answer->logprobs.insert(answer->logprobs.end(), delta.logprobs().begin(),
                              delta.logprobs().end());
      GF_RETURN_IF_ERROR(answer->routing.Add(delta.routing_trace()));
      return on_delta ? on_delta(delta) : absl::OkStatus();
    }
    case StreamGenerateTextResponse::kFinish:
      answer->finish = response.finish();
      return absl::OkStatus();
    case StreamGenerateTextResponse::kSummary:
      answer->summary = response.summary();
      return absl::OkStatus();
    case StreamGenerateTextResponse::EVENT_NOT_SET:
      return absl::OkStatus();  // an event of a later version
  }
  return absl::OkStatus();
}

}  // namespace

absl::StatusOr<Answer> GenerateAnswer(Connection* connection,
                                      const inference::v1::GenerateTextRequest& request,
                                      const OnDelta& on_delta) {
  StreamGenerateTextRequest stream_request;
  *stream_request.mutable_request() = request;
  Call call(*connection);
  const auto reader = connection->inference()->StreamGenerateText(call.context(), stream_request);
  Answer answer;
  StreamGenerateTextResponse response;
  bool summarised = false;
  while (reader->Read(&response)) {
    if (absl::Status noted = Note(response, on_delta, &answer); !noted.ok()) {
      call.context()->TryCancel();
      while (reader->Read(&response)) {
      }
      reader->Finish().ok();  // the reason is known
      return noted;
    }
    summarised = summarised || response.has_summary();
  }
  GF_RETURN_IF_ERROR(connection->ToStatus(reader->Finish()));
  if (!summarised || answer.finish.reason() == inference::v1::FINISH_REASON_UNSPECIFIED) {
    return absl::InternalError("the stream ended before the answer was finished");
  }
  return answer;
}

double Seconds(const google::protobuf::Duration& span) {
  return static_cast<double>(span.seconds()) + 1e-9 * span.nanos();
}

std::string FinishReasonName(inference::v1::FinishReason reason) {
  return absl::AsciiStrToLower(
      absl::StripPrefix(inference::v1::FinishReason_Name(reason), "FINISH_REASON_"));
}

}  // namespace gatefold::cli
