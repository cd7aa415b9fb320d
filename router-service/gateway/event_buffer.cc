#include "router-service/gateway/event_buffer.h"

#include <utility>

#include "gatefold/base/check.h"
#include "router-service/gateway/routing_trace.h"

namespace gatefold {

using inference::v1::StreamGenerateTextResponse;

namespace {

// How much longer another delta becomes by taking this one in, roughly.
int64_t MergedBytes(const StreamGenerateTextResponse::Delta& delta) {
  constexpr int64_t kIdBytes = 3, kFieldBytes = 2;
  int64_t bytes = delta.text().size() + kIdBytes * delta.token_ids_size();
  for (const auto& logprobs : delta.logprobs()) {
    bytes += kFieldBytes + static_cast<int64_t>(logprobs.ByteSizeLong());
  }
  const auto& trace = delta.routing_trace();
  return bytes + trace.expert_ids().size() + trace.gate_weights().size() + trace.shards().size();
}

}  // namespace

bool MergeDelta(StreamGenerateTextResponse::Delta&& more,
                StreamGenerateTextResponse::Delta* delta) {
  if (more.candidate_index() != delta->candidate_index()) return false;
  if (more.has_routing_trace() &&
      !AppendTrace(more.routing_trace(), delta->mutable_routing_trace())) {
    return false;
  }
  delta->set_n_tokens(delta->n_tokens() + more.n_tokens());
  delta->mutable_text()->append(more.text());
  delta->mutable_token_ids()->MergeFrom(more.token_ids());
  for (auto& logprobs : *more.mutable_logprobs()) *delta->add_logprobs() = std::move(logprobs);
  return true;
}

EventBuffer::Unread*& EventBuffer::Growing(uint32_t candidate_index) {
  if (growing_.size() <= candidate_index) growing_.resize(candidate_index + 1, nullptr);
  return growing_[candidate_index];
}

void EventBuffer::Open(Event started) {
  GF_CHECK(!opened_);
  opened_ = true;
  // What was asked about the prompt is limited before the request starts, so it does not count.
  unread_.push_front({std::move(started), 0});
}

bool EventBuffer::Push(Event event) {
  if (end_.has_value()) return true;
  if (event.has_delta()) return PushDelta(std::move(event));
  const int64_t bytes = static_cast<int64_t>(event.ByteSizeLong());
  unread_bytes_ += bytes;
  unread_.push_back({std::move(event), bytes});
  return true;
}

bool EventBuffer::PushDelta(Event event) {
  auto* delta = event.mutable_delta();
  Unread*& growing = Growing(delta->candidate_index());
  const int64_t merged = MergedBytes(*delta);
  if (unread_bytes_ + merged > max_unread_bytes_) return false;
  // The text that is left at the end comes again to who resumes after all tokens, and only a delta
  // of its own tells them which that is.
  const bool is_rest = delta->n_tokens() == 0 && !delta->text().empty();
  if (growing != nullptr && !is_rest && growing->bytes + merged <= max_delta_bytes_ &&
      MergeDelta(std::move(*delta), growing->event.mutable_delta())) {
    growing->bytes += merged;
    unread_bytes_ += merged;
    return true;
  }
  const int64_t bytes = static_cast<int64_t>(event.ByteSizeLong());
  unread_bytes_ += bytes;
  unread_.push_back({std::move(event), bytes});
  growing = &unread_.back();
  return true;
}

void EventBuffer::End(absl::Status status) {
  if (end_.has_value()) return;
  if (!opened_) unread_.clear();
  end_ = std::move(status);
}

EventBuffer::Taken EventBuffer::Take(Event* event, absl::Status* status) {
  reader_waits_ = false;
  if (opened_ && !unread_.empty()) {
    for (Unread*& growing : growing_) {
      if (growing == &unread_.front()) growing = nullptr;
    }
    *event = std::move(unread_.front().event);
    unread_bytes_ -= unread_.front().bytes;
    unread_.pop_front();
    return Taken::kEvent;
  }
  if (end_.has_value()) {
    *status = *end_;
    return Taken::kEnd;
  }
  reader_waits_ = true;
  return Taken::kNothingYet;
}

bool EventBuffer::ClaimWake() {
  if (!reader_waits_ || !((opened_ && !unread_.empty()) || end_.has_value())) return false;
  reader_waits_ = false;
  return true;
}

}  // namespace gatefold
