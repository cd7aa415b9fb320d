#include "router-service/gateway/candidate_transcript.h"

#include <limits>
#include <utility>

#include "gatefold/base/check.h"
#include "router-service/gateway/routing_trace.h"
#include "router-service/gateway/token_logprobs.h"

namespace gatefold {

namespace {

inference::v1::FinishReason ReasonFor(StopCause cause) {
  switch (cause) {
    case StopCause::kStopToken:
      return inference::v1::FINISH_REASON_STOP;
    case StopCause::kMaxTokens:
    case StopCause::kPromptDone:  // max_output_tokens was 0
      return inference::v1::FINISH_REASON_LENGTH;
    case StopCause::kContextLength:
      return inference::v1::FINISH_REASON_CONTEXT_LENGTH;
    case StopCause::kCancelled:
      return inference::v1::FINISH_REASON_CANCELLED;
    case StopCause::kListener:
    case StopCause::kError:
      break;
  }
  GF_CHECK(false);
  return inference::v1::FINISH_REASON_UNSPECIFIED;
}

}  // namespace

CandidateTranscript::CandidateTranscript(int index, const TextCodec* codec,
                                         absl::Span<const int32_t> prompt,
                                         const inference::v1::GenerationConfig& config,
                                         const inference::v1::OutputOptions& output)
    : index_(index),
      codec_(codec),
      output_(output),
      text_(codec, prompt, {config.stop_sequences().begin(), config.stop_sequences().end()},
            static_cast<int>(config.min_output_tokens())) {}

bool CandidateTranscript::Resume(const std::vector<int32_t>& token_ids) {
  for (const int32_t id : token_ids) {
    matched_stop_ = text_.Push(id).matched_stop;
    if (matched_stop_.has_value()) return true;
  }
  return false;
}

bool CandidateTranscript::AddTrace(const TraceChunk& chunk, int first_position,
                                   const std::vector<std::string>& shard_names) {
  return AppendTrace(chunk, first_position, std::numeric_limits<int>::max(), shard_names,
                     &pending_trace_);
}

CandidateTranscript::Delta CandidateTranscript::NewDelta() {
  Delta delta;
  delta.set_candidate_index(index_);
  if (pending_trace_.n_tokens() > 0) {
    *delta.mutable_routing_trace() = std::exchange(pending_trace_, {});
  }
  return delta;
}

CandidateTranscript::Delta CandidateTranscript::AddToken(const Sampled& token, bool* stopped) {
  ++n_new_tokens_;
  Delta delta = NewDelta();
  delta.set_n_tokens(1);
  if (output_.token_ids()) delta.add_token_ids(token.token);
  if (output_.logprobs() || output_.top_logprobs() > 0) {
    *delta.add_logprobs() = MakeTokenLogprobs(token, codec_);
  }
  CandidateText::Piece piece = text_.Push(token.token);
  delta.set_text(std::move(piece.text));
  matched_stop_ = std::move(piece.matched_stop);
  *stopped = matched_stop_.has_value();
  return delta;
}

std::optional<CandidateTranscript::Delta> CandidateTranscript::Flush() {
  Delta delta = NewDelta();
  if (!matched_stop_.has_value()) {
    CandidateText::Piece piece = text_.Finish();
    delta.set_text(std::move(piece.text));
    matched_stop_ = std::move(piece.matched_stop);
  }
  if (delta.text().empty() && !delta.has_routing_trace()) return std::nullopt;
  return delta;
}

CandidateTranscript::Finish CandidateTranscript::TakeFinish(StopCause cause, int32_t stop_token) {
  Finish finish;
  finish.set_candidate_index(index_);
  if (matched_stop_.has_value()) {
    finish.set_reason(inference::v1::FINISH_REASON_STOP_SEQUENCE);
    finish.set_matched_stop(*matched_stop_);
    return finish;
  }
  finish.set_reason(ReasonFor(cause));
  if (cause == StopCause::kStopToken) finish.set_stop_token_id(stop_token);
  return finish;
}

}  // namespace gatefold
