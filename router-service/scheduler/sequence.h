#pragma once

#include <algorithm>
#include <atomic>
#include <memory>
#include <vector>

#include "absl/time/time.h"
#include "gatefold/engine/expert_client.h"
#include "gatefold/engine/step.h"
#include "gatefold/engine/step_loop.h"
#include "router-service/scheduler/generation.h"

namespace gatefold {

// One generation on its way: its tokens so far, and how many of them attention has computed. All
// that a restart of every other service needs to go on with the same tokens.
// Threads: one lane's thread, except Cancel(), which any thread may call.
class Sequence {
 public:
  // `max_positions`: how many positions it may take, prompt and output together.
  Sequence(SequenceId id, GenerationRequest request, std::shared_ptr<GenerationListener> listener,
           int max_positions, absl::Time arrival);

  SequenceId id() const { return id_; }
  int priority() const { return request_.priority; }
  absl::Time deadline() const { return request_.deadline; }
  const std::string& request_id() const { return request_.request_id; }
  // As attention is to open it now: with all its tokens, and with what it must compute again for
  // its listener's sake kept out of the prefix cache.
  // KV blocks are taken for those and `headroom_tokens` more, or for all it may need.
  SequenceSpec Spec(int headroom_tokens) const;
  // It was opened, and keys and values of its first `n_cached` positions are there.
  void Opened(int n_cached);

  void Cancel() { cancelled_ = true; }
  bool cancelled() const { return cancelled_; }
  bool ended() const { return ended_; }

  // Tokens that attention has not computed yet; one means the next row is a decode row.
  int n_pending() const { return static_cast<int>(tokens_.size()) - n_computed_; }

  // What one sequence has in a step.
  struct Share {
    Sequence* sequence = nullptr;
    StepSpan span;
    int first_row = 0;
    int first_sample = 0;
    int n_samples = 0;
  };

  // Appends its next span, at most `budget` tokens (at least 1), to the step.
  Share AddTo(int budget, Step* step);

  // Takes its share of the step's result: tells the listener, appends the token, may end.
  void Commit(const Share& share, const StepResult& result);

  // Attention lost its keys and values: everything is to be computed again. Nothing is told twice.
  void ForgetComputed() { n_computed_ = 0; }

  // It lost its KV blocks to others. So that this happens once, it asks for all it may need the
  // next time: two that lack one block each would preempt each other for ever.
  void ReserveAll() { reserve_all_ = true; }

  // The order of the line: higher priority first, then who came first.
  bool Before(const Sequence& other) const {
    return priority() != other.priority() ? priority() > other.priority() : id_ < other.id_;
  }

  // Ends it before its time. Does nothing if it has ended.
  void End(StopCause cause, absl::Status status);

  // Ends it if it was cancelled, is out of time, or was complete when it arrived.
  void EndIfDue(absl::Time now);

  // A step failed with it: it rides in none until `retry_at`, and until that has changed which it
  // lacked. Kept until a step works.
  struct Hold {
    absl::Time since = absl::InfiniteFuture();
    // Since when it is tried in vain, moved on by what it waited without a try meanwhile, for an
    // expert or in line for KV blocks: that may take as long as the request's deadline allows.
    absl::Time tried_since = absl::InfiniteFuture();
    absl::Time waits_since = absl::InfiniteFuture();
    absl::Time retry_at = absl::InfinitePast();
    absl::Status why;
    std::vector<MissingExpert> lacks;  // empty: it was not for an expert
  };
  Hold hold;
  // From when it could be tried again until it is, it only waits. (The pause after a failure counts:
  // what fails at once would else be tried for ever.)
  void Wait(absl::Time now) {
    hold.waits_since = std::min(hold.waits_since, std::max(now, hold.retry_at));
  }
  // Ends it for the reason it is held for.
  void EndHeld(absl::Time now);
  bool FailsTooLong(absl::Time now, absl::Duration limit) const {
    return now - hold.tried_since >= limit;
  }

 private:
  bool ScoresPosition(int position) const;
  int MaxCached() const;
  void NoteDegraded(const Share& share, const StepResult& result);
  void TellTrace(const Share& share, const StepResult& result);
  void TellPromptScores(const Share& share, const StepResult& result);
  void TakeToken(const Sampled& token);
  void EndIfComplete();
  bool HeldTooLong(absl::Time now) const;
  int n_output() const { return static_cast<int>(tokens_.size() - request_.prompt.size()); }

  const SequenceId id_;
  const GenerationRequest request_;
  const std::shared_ptr<GenerationListener> listener_;
  const int max_positions_;
  std::vector<int32_t> tokens_;  // prompt and output
  int n_computed_ = 0;           // positions whose keys and values attention holds
  int n_told_ = 0;               // positions whose trace and scores the listener has
  int n_cached_prompt_ = -1;     // of the prompt, found in the cache when it began; -1: it did not
  bool reserve_all_ = false;
  int32_t stop_token_ = -1;
  const absl::Time arrival_;
  bool began_ = false;          // took part in a step
  std::vector<bool> degraded_;  // by position: it was computed without some of its experts
  std::atomic<bool> cancelled_{false};
  bool ended_ = false;
};

}  // namespace gatefold
