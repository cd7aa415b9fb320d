#include "cli/answer.h"

#include <memory>
#include <ostream>
#include <utility>

#include "absl/strings/ascii.h"
#include "absl/strings/strip.h"
#include "gatefold/base/status_macros.h"

namespace gatefold::cli {
namespace {

using inference::v1::StreamGenerateTextRequest;
using inference::v1::StreamGenerateTextResponse;

// What came of a request, over all streams that it took.
struct Course {
  StreamGenerateTextRequest request;  // for the next stream
  Answer answer;
  // Text of no further token, which ends an answer. Without its end the next stream says it again.
  StreamGenerateTextResponse::Delta rest;
  bool finished = false, summarised = false;
};

absl::Status Take(const StreamGenerateTextResponse::Delta& delta, const OnDelta& on_delta,
                  Answer* answer) {
  answer->text += delta.text();
  answer->token_ids.insert(answer->token_ids.end(), delta.token_ids().begin(),
                           delta.token_ids().end());
  answer->logprobs.insert(answer->logprobs.end(), delta.logprobs().begin(), delta.logprobs().end());
  GF_RETURN_IF_ERROR(answer->routing.Add(delta.routing_trace()));
  return on_delta ? on_delta(delta) : absl::OkStatus();
}

absl::Status Note(const StreamGenerateTextResponse& response, const OnDelta& on_delta,
                  Course* course) {
  Answer* const answer = &course->answer;
  switch (response.event_case()) {
    case StreamGenerateTextResponse::kStarted: {
      auto* const config = course->request.mutable_request()->mutable_config();
      if (response.started().seed() != 0) config->set_seed(response.started().seed());
      if (!answer->token_ids.empty()) return absl::OkStatus();  // the prompt's was there before
      return answer->routing.Add(response.started().prompt().routing_trace());
    }
    case StreamGenerateTextResponse::kDelta:
      if (response.delta().n_tokens() == 0) {
        course->rest = response.delta();
        return absl::OkStatus();
      }
      return Take(response.delta(), on_delta, answer);
    case StreamGenerateTextResponse::kFinish:
      answer->finish = response.finish();
      course->finished = true;
      if (course->rest.text().empty()) return absl::OkStatus();
      return Take(std::exchange(course->rest, {}), on_delta, answer);
    case StreamGenerateTextResponse::kSummary:
      answer->summary = response.summary();
      course->summarised = true;
      return absl::OkStatus();
    case StreamGenerateTextResponse::EVENT_NOT_SET:
      return absl::OkStatus();  // an event of a later version
  }
  return absl::OkStatus();
}

// One stream, at one of the connection's routers. `ours`: the error is the caller's own.
absl::Status RunStream(Connection* connection, size_t router, const OnDelta& on_delta,
                       Course* course, bool* ours) {
  Call call(*connection);
  const auto reader =
      connection->inference(router)->StreamGenerateText(call.context(), course->request);
  StreamGenerateTextResponse response;
  while (reader->Read(&response)) {
    if (absl::Status noted = Note(response, on_delta, course); !noted.ok()) {
      call.context()->TryCancel();
      while (reader->Read(&response)) {
      }
      reader->Finish().ok();  // the reason is known
      *ours = true;
      return noted;
    }
  }
  return connection->ToStatus(reader->Finish(), router);
}

absl::StatusOr<Answer> Ended(Course course) {
  if (!course.summarised ||
      course.answer.finish.reason() == inference::v1::FINISH_REASON_UNSPECIFIED) {
    return absl::InternalError("the stream ended before the answer was finished");
  }
  return std::move(course.answer);
}

}  // namespace

absl::StatusOr<Answer> GenerateAnswer(Connection* connection,
                                      const inference::v1::GenerateTextRequest& request,
                                      const OnDelta& on_delta) {
  Course course;
  *course.request.mutable_request() = request;
  bool ours = false;
  GF_RETURN_IF_ERROR(RunStream(connection, 0, on_delta, &course, &ours));
  return Ended(std::move(course));
}

absl::StatusOr<Answer> GenerateSteadily(Connection* connection,
                                        const inference::v1::GenerateTextRequest& request,
                                        const OnDelta& on_delta, Console* console) {
  Course course;
  *course.request.mutable_request() = request;
  course.request.mutable_request()->mutable_output()->set_token_ids(true);  // to go on from
  const auto& tokens = course.answer.token_ids;
  size_t n_in_vain = 0;  // routers in a row that brought nothing
  for (size_t router = 0;; router = (router + 1) % connection->n_routers()) {
    const size_t n_before = tokens.size();
    bool ours = false;
    const absl::Status status = RunStream(connection, router, on_delta, &course, &ours);
    if (status.ok()) return Ended(std::move(course));
    n_in_vain = tokens.size() > n_before ? 0 : n_in_vain + 1;
    // A call that reaches a router in the moment it goes ends with CANCELLED.
    const bool gone = absl::IsUnavailable(status) ||
                      (absl::IsCancelled(status) && !connection->interrupts()->raised());
    // The summary is a stream's last word: nothing was lost but the connection.
    if (gone && course.summarised) return Ended(std::move(course));
    if (ours || !gone || course.finished || n_in_vain >= connection->n_routers()) return status;
    console->err << "\ngoing on elsewhere: " << status.message() << "\n";
    course.rest.Clear();
    course.answer.n_resumed = static_cast<uint32_t>(tokens.size());
    course.request.mutable_resume_token_ids()->Assign(tokens.begin(), tokens.end());
  }
}

OnDelta PrintedOn(Console* console) {
  return [console](const StreamGenerateTextResponse::Delta& delta) {
    console->out << delta.text() << std::flush;
    return console->out ? absl::OkStatus() : absl::DataLossError("the output could not be written");
  };
}

double Seconds(const google::protobuf::Duration& span) {
  return static_cast<double>(span.seconds()) + 1e-9 * span.nanos();
}

std::string FinishReasonName(inference::v1::FinishReason reason) {
  return absl::AsciiStrToLower(
      absl::StripPrefix(inference::v1::FinishReason_Name(reason), "FINISH_REASON_"));
}

}  // namespace gatefold::cli
