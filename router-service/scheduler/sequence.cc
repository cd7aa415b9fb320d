#include "router-service/scheduler/sequence.h"

#include <algorithm>
#include <utility>

#include "absl/strings/str_cat.h"
#include "gatefold/base/check.h"
#include "gatefold/base/status_macros.h"

namespace gatefold {

Sequence::Sequence(SequenceId id, GenerationRequest request,
                   std::shared_ptr<GenerationListener> listener, int max_positions,
                   absl::Time arrival)
    : id_(id),
      request_(std::move(request)),
      listener_(std::move(listener)),
      max_positions_(max_positions),
      tokens_(request_.prompt),
      arrival_(arrival) {
  tokens_.insert(tokens_.end(), request_.resumed.begin(), request_.resumed.end());
}

SequenceSpec Sequence::Spec(int headroom_tokens) const {
  SequenceSpec spec;
  spec.id = id_;
  spec.n_positions = std::min<int64_t>(
      max_positions_, static_cast<int64_t>(request_.prompt.size()) + request_.max_output_tokens);
  const int64_t n_started = static_cast<int64_t>(tokens_.size()) + headroom_tokens;
  spec.n_reserved = reserve_all_ ? spec.n_positions
                                 : static_cast<int>(std::min<int64_t>(n_started, spec.n_positions));
  spec.tokens = tokens_;
  spec.max_cached = MaxCached();
  spec.sampling = request_.sampling;
  spec.sampling.n_prompt_tokens = static_cast<int>(request_.prompt.size());
  return spec;
}

int Sequence::MaxCached() const {
  // The last row draws the next token, or is what a request for no token at all is left with.
  const int before_last = static_cast<int>(tokens_.size()) - 1;
  return request_.score_prompt || request_.want_trace ? std::min(before_last, n_told_)
                                                      : before_last;
}

void Sequence::Opened(int n_cached) {
  GF_CHECK(n_cached >= 0 && n_cached <= MaxCached());
  n_computed_ = n_cached;
  if (n_cached_prompt_ < 0) {
    n_cached_prompt_ = std::min(n_cached, static_cast<int>(request_.prompt.size()));
  }
}

bool Sequence::ScoresPosition(int position) const {
  if (!request_.score_prompt || position < n_told_) return false;
  const int last_prompt = static_cast<int>(request_.prompt.size()) - 1;
  // The last prompt row draws the first token instead, if one is wanted.
  return position < last_prompt || (position == last_prompt && request_.max_output_tokens == 0);
}

Sequence::Share Sequence::AddTo(int budget, Step* step) {
  GF_CHECK(budget > 0 && n_pending() > 0 && !ended_);
  if (!std::exchange(began_, true)) listener_->OnFirstStep(n_cached_prompt_);
  Share share;
  share.sequence = this;
  share.span = {id_, n_computed_, std::min(budget, n_pending())};
  share.first_row = step->n_rows();
  share.first_sample = static_cast<int>(step->samples.size());
  const int end = n_computed_ + share.span.n_tokens;
  for (int position = n_computed_; position < end; ++position) {
    SampleRequest sample;
    sample.row = step->n_rows();
    sample.sequence = id_;
    sample.position = position;
    step->token_ids.push_back(tokens_[position]);
    if (ScoresPosition(position)) {
      sample.score = true;
      sample.n_top_logprobs = request_.n_prompt_top_logprobs;
      const bool last = position + 1 == static_cast<int>(request_.prompt.size());
      if (!last) sample.target = tokens_[position + 1];
      sample.want_logits = last && request_.want_last_logits;
      step->samples.push_back(sample);
    } else if (position + 1 == static_cast<int>(tokens_.size()) && request_.max_output_tokens > 0) {
      sample.n_top_logprobs = request_.sampling.n_top_logprobs;
      step->samples.push_back(sample);
    }
  }
  share.n_samples = static_cast<int>(step->samples.size()) - share.first_sample;
  step->spans.push_back(share.span);
  step->want_trace |= request_.want_trace;
  if (step->traceparent.empty()) step->traceparent = request_.traceparent;
  return share;
}

void Sequence::Commit(const Share& share, const StepResult& result) {
  if (ended_) return;
  hold = Hold();
  NoteDegraded(share, result);
  for (int i = 0; i < share.n_samples; ++i) {
    if (!result.sampled[share.first_sample + i].not_a_number) continue;
    // Samples are of the span's last positions. So it says the same in whatever steps it came.
    const int position = share.span.first_position + share.span.n_tokens - share.n_samples + i;
    return End(StopCause::kError,
               absl::InternalError(absl::StrCat(
                   "the model computed NaN at position ", position,
                   ": its weights hold NaN or numbers too large, or overflow for this text")));
  }
  TellTrace(share, result);
  TellPromptScores(share, result);
  n_computed_ += share.span.n_tokens;
  n_told_ = std::max(n_told_, n_computed_);
  if (n_pending() > 0) return;
  if (request_.max_output_tokens == 0) {
    End(StopCause::kPromptDone, absl::OkStatus());
  } else {
    GF_CHECK(share.n_samples > 0);
    TakeToken(result.sampled[share.first_sample + share.n_samples - 1]);
  }
}

void Sequence::NoteDegraded(const Share& share, const StepResult& result) {
  if (result.degraded.empty()) return;
  degraded_.resize(tokens_.size());
  int n_more = 0;
  for (int row = 0; row < share.span.n_tokens; ++row) {
    if (!result.degraded[share.first_row + row]) continue;
    // Kept where it is computed again, soundly: tokens after it may have followed from it.
    const int position = share.span.first_position + row;
    n_more += !degraded_[position];
    degraded_[position] = true;
  }
  if (n_more > 0) listener_->OnDegraded(n_more);
}

void Sequence::TellTrace(const Share& share, const StepResult& result) {
  if (!request_.want_trace || result.trace.empty()) return;
  const int skip = std::max(0, n_told_ - share.span.first_position);
  const int n = share.span.n_tokens - skip;
  if (n <= 0) return;
  TraceChunk chunk;
  chunk.first_position = share.span.first_position + skip;
  chunk.n_tokens = n;
  chunk.top_k = static_cast<int>(result.trace.front().experts.size()) / result.n_rows;
  for (const LayerTrace& layer : result.trace) chunk.layers.push_back(layer.layer);
  for (int token = 0; token < n; ++token) {
    const size_t first = static_cast<size_t>(share.first_row + skip + token) * chunk.top_k;
    for (const LayerTrace& layer : result.trace) {
      for (size_t i = first; i < first + chunk.top_k; ++i) {
        chunk.experts.push_back(layer.experts[i]);
        chunk.weights.push_back(layer.weights[i]);
        chunk.served_by.push_back(layer.served_by[i]);
      }
    }
  }
  listener_->OnTrace(chunk);
}

void Sequence::TellPromptScores(const Share& share, const StepResult& result) {
  // AddTo asked for scores at consecutive positions, and for at most one drawn token after them.
  std::vector<Sampled> scores;
  int first_position = share.span.first_position;
  while (first_position < share.span.first_position + share.span.n_tokens &&
         !ScoresPosition(first_position)) {
    ++first_position;
  }
  for (int i = 0; i < share.n_samples && ScoresPosition(first_position + i); ++i) {
    scores.push_back(result.sampled[share.first_sample + i]);
  }
  if (!scores.empty()) listener_->OnPromptScores(first_position, scores);
}

void Sequence::TakeToken(const Sampled& token) {
  const std::vector<int32_t>& stops = request_.stop_token_ids;
  const bool may_stop = n_output() >= request_.sampling.min_output_tokens;
  if (may_stop && std::find(stops.begin(), stops.end(), token.token) != stops.end()) {
    stop_token_ = token.token;
    return End(StopCause::kStopToken, absl::OkStatus());
  }
  tokens_.push_back(token.token);
  if (!listener_->OnToken(token)) return End(StopCause::kListener, absl::OkStatus());
  EndIfComplete();
}

void Sequence::EndIfComplete() {
  if (n_output() > 0 && n_output() >= request_.max_output_tokens) {
    End(StopCause::kMaxTokens, absl::OkStatus());
  } else if (static_cast<int>(tokens_.size()) >= max_positions_ && request_.max_output_tokens > 0) {
    End(StopCause::kContextLength, absl::OkStatus());
  }
}

void Sequence::EndIfDue(absl::Time now) {
  if (ended_) return;
  if (cancelled_) {
    End(StopCause::kCancelled, absl::CancelledError("the request was cancelled"));
  } else if (HeldTooLong(now)) {
    EndHeld(now);
  } else if (now >= request_.deadline) {
    End(StopCause::kError,
        absl::DeadlineExceededError(absl::StrCat("the deadline passed after ", n_output(), " of ",
                                                 request_.max_output_tokens, " output tokens")));
  } else if (!request_.resumed.empty()) {
    EndIfComplete();
  }
}

// Its deadline comes, and no shard holds the expert it waits for. A little before it, so that the
// caller, whose clock has the same deadline, is still told why.
bool Sequence::HeldTooLong(absl::Time now) const {
  const absl::Duration notice =
      std::min(absl::Milliseconds(250), (request_.deadline - arrival_) / 10);
  return !hold.lacks.empty() && now >= request_.deadline - notice;
}

void Sequence::EndHeld(absl::Time now) {
  const absl::Duration waited = absl::Trunc(now - hold.since, absl::Milliseconds(1));
  absl::Status why = hold.why;
  if (absl::IsAborted(why)) why = absl::UnavailableError(why.message());
  if (waited > absl::ZeroDuration()) {
    why = Annotate(why, absl::StrCat("after ", absl::FormatDuration(waited)));
  }
  End(StopCause::kError, std::move(why));
}

void Sequence::End(StopCause cause, absl::Status status) {
  if (ended_) return;
  ended_ = true;
  GenerationEnd end;
  end.cause = cause;
  end.status = std::move(status);
  end.stop_token = stop_token_;
  end.n_output_tokens = n_output();
  listener_->OnEnd(end);
}

}  // namespace gatefold
