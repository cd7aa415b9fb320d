#pragma once

#include <cstdint>
#include <deque>
#include <optional>
#include <vector>

#include "absl/status/status.h"
#include "gatefold/inference/v1/inference.pb.h"

namespace gatefold {

// Appends the tokens of `more`, which come next, to `delta`. False, with nothing changed, if they
// cannot be one delta: another candidate's, or a gap in the routing trace.
bool MergeDelta(inference::v1::StreamGenerateTextResponse::Delta&& more,
                inference::v1::StreamGenerateTextResponse::Delta* delta);

// The events of one request that its reader has not taken yet. Deltas of a candidate that wait here
// become one, so a slow reader gets fewer and longer ones; but text without tokens stays alone.
// Threads: one at a time.
class EventBuffer {
 public:
  using Event = inference::v1::StreamGenerateTextResponse;
  enum class Taken { kEvent, kNothingYet, kEnd };

  // Deltas grow to about max_delta_bytes by merging.
  EventBuffer(int64_t max_delta_bytes, int64_t max_unread_bytes)
      : max_delta_bytes_(max_delta_bytes), max_unread_bytes_(max_unread_bytes) {}

  // Nothing can be taken before the first event, `started`, is there.
  void Open(Event started);
  bool opened() const { return opened_; }

  // False, and not taken, for a delta with which more than max_unread_bytes would wait. Other
  // events are few and small.
  bool Push(Event event);

  // What comes after the events. Only the first call counts; without Open() events are dropped.
  void End(absl::Status status);
  bool ended() const { return end_.has_value(); }
  const absl::Status& end() const { return *end_; }

  // `status` is set with kEnd.
  Taken Take(Event* event, absl::Status* status);

  // True once after kNothingYet was answered and there is something to take again.
  bool ClaimWake();

 private:
  struct Unread {
    Event event;
    int64_t bytes = 0;
  };

  bool PushDelta(Event event);
  // The delta of this candidate that may still grow; null: none.
  Unread*& Growing(uint32_t candidate_index);

  const int64_t max_delta_bytes_;
  const int64_t max_unread_bytes_;
  std::deque<Unread> unread_;     // references stay valid while it grows and shrinks at its ends
  std::vector<Unread*> growing_;  // by candidate
  int64_t unread_bytes_ = 0;
  bool opened_ = false;
  bool reader_waits_ = false;
  std::optional<absl::Status> end_;
};

}  // namespace gatefold
