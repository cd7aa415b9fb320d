#include "router-service/gateway/generation_collector.h"

#include <utility>

#include "absl/strings/str_cat.h"
#include "router-service/gateway/event_buffer.h"

namespace gatefold {

using inference::v1::StreamGenerateTextResponse;

GenerationCollector::Output& GenerationCollector::At(uint32_t candidate_index) {
  while (outputs_.size() <= candidate_index) {
    outputs_.emplace_back().whole.set_candidate_index(static_cast<uint32_t>(outputs_.size() - 1));
  }
  return outputs_[candidate_index];
}

absl::Status GenerationCollector::Add(StreamGenerateTextResponse event) {
  n_bytes_ += static_cast<int64_t>(event.ByteSizeLong());
  if (n_bytes_ > max_response_bytes_) {
    return absl::ResourceExhaustedError(
        absl::StrCat("the answer has more than ", max_response_bytes_,
                     " bytes; StreamGenerateText can send it in pieces"));
  }
  switch (event.event_case()) {
    case StreamGenerateTextResponse::kStarted:
      response_.set_request_id(event.started().request_id());
      *response_.mutable_prompt() = std::move(*event.mutable_started()->mutable_prompt());
      break;
    case StreamGenerateTextResponse::kDelta: {
      auto* delta = event.mutable_delta();
      const uint32_t index = delta->candidate_index();
      if (!MergeDelta(std::move(*delta), &At(index).whole)) {
        return absl::InternalError("the routing trace has a gap");
      }
      break;
    }
    case StreamGenerateTextResponse::kFinish:
      At(event.finish().candidate_index()).finish = event.finish();
      break;
    case StreamGenerateTextResponse::kSummary:
      *response_.mutable_summary() = std::move(*event.mutable_summary());
      break;
    case StreamGenerateTextResponse::EVENT_NOT_SET:
      break;
  }
  return absl::OkStatus();
}

inference::v1::GenerateTextResponse GenerationCollector::Take() {
  for (Output& output : outputs_) {
    auto* candidate = response_.add_candidates();
    candidate->set_index(output.whole.candidate_index());
    candidate->set_text(std::move(*output.whole.mutable_text()));
    candidate->mutable_token_ids()->Swap(output.whole.mutable_token_ids());
    candidate->mutable_logprobs()->Swap(output.whole.mutable_logprobs());
    if (output.whole.has_routing_trace()) {
      *candidate->mutable_routing_trace() = std::move(*output.whole.mutable_routing_trace());
    }
    candidate->set_finish_reason(output.finish.reason());
    candidate->set_matched_stop(output.finish.matched_stop());
    if (output.finish.has_stop_token_id()) {
      candidate->set_stop_token_id(output.finish.stop_token_id());
    }
  }
  return std::move(response_);
}

}  // namespace gatefold
