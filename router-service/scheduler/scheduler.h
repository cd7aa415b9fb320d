#pragma once

#include <deque>
#include <functional>
#include <memory>
#include <vector>

#include "absl/base/thread_annotations.h"
#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/synchronization/mutex.h"
#include "absl/time/time.h"
#include "gatefold/engine/step_loop.h"
#include "router-service/scheduler/generation.h"

namespace gatefold {

class Lane;
class Sequence;

// What the gateway sees of the scheduler: submit, cancel, look. Threads: safe.
class GenerationService {
 public:
  // Cancels its generation when destroyed (its KV blocks are free within a step), unless it ended.
  class Handle {
   public:
    virtual ~Handle() = default;
  };

  struct Load {
    int n_running = 0;
    int n_waiting = 0;
    int n_waiting_for_expert = 0;  // of those that run
  };

  virtual ~GenerationService() = default;

  // Errors: kResourceExhausted (QUEUE_FULL, or KV_CACHE_FULL where those in it wait for KV blocks;
  // with a retry delay) when the queue is full;
  // kUnavailable while the model is loading or the service drains.
  virtual absl::StatusOr<std::unique_ptr<Handle>> Submit(
      GenerationRequest request, std::shared_ptr<GenerationListener> listener) = 0;

  virtual Load load() const = 0;

  // Positions (prompt and output together) one sequence may have; KV memory may allow fewer than
  // the model.
  virtual int max_sequence_tokens() const = 0;
};

struct SchedulerOptions {
  int max_step_tokens = 512;  // rows of one step, decode and prefill together
  int max_running = 64;       // sequences over all lanes; as many again may wait for an expert
  int max_waiting = 256;      // beyond it requests are refused
  int max_sequence_tokens = 4096;
  // How long a sequence whose steps keep failing is tried again before it is ended.
  absl::Duration step_retry_timeout = absl::Seconds(30);
  absl::Duration step_retry_delay = absl::Milliseconds(20);
  // A lane that is in one for longer waits for a service that hangs, as a rule: it is not waited
  // for with who comes next.
  absl::Duration longest_step = absl::Seconds(5);
  // A sequence starts when there are KV blocks for its tokens and so many more; it takes further
  // ones as it grows. More: fewer are preempted. Less: more run at once.
  int headroom_tokens = 64;
  bool fail_on_missing_expert = false;  // instead of waiting for it

  absl::Status Validate() const;
};

// Why keys and values of a running sequence are computed again.
enum class RecomputeReason {
  kPreempted,  // others needed its KV blocks
  kMoved,      // its attention-service is gone or draining
};

// Told about every step, on the lane's thread.
class SchedulerObserver {
 public:
  virtual ~SchedulerObserver() = default;
  virtual void OnStep(const Step& step, const StepResult& result, absl::Duration total) = 0;
  virtual void OnStepFailed(const absl::Status& status) = 0;
  virtual void OnRecompute(RecomputeReason reason) = 0;
};

// What one lane computes with; the lane's thread alone uses it.
struct LaneEngine {
  std::unique_ptr<AttentionClient> attention;
  std::unique_ptr<ExpertClient> experts;
  std::unique_ptr<StepLoop> loop;  // refers to both
};

// Continuous batching: requests wait in one queue, lanes take them as there is room, and every step
// of a lane mixes a row of each decoding sequence with chunks of prompts up to a token budget.
// Threads: safe. Owns one thread per lane.
class Scheduler final : public GenerationService {
 public:
  // One lane per engine. `observer` may be null and outlives the scheduler.
  static absl::StatusOr<std::unique_ptr<Scheduler>> Create(const SchedulerOptions& options,
                                                           std::vector<LaneEngine> engines,
                                                           SchedulerObserver* observer);
  ~Scheduler() override;  // stops it

  // Ends what runs and waits with kUnavailable and joins the lanes: when it returns no listener is
  // being called or will be, so whatever listeners refer to may go. Requests are refused from then
  // on. A second call does nothing. Threads: one at a time, no lane's own.
  void Stop();

  absl::StatusOr<std::unique_ptr<Handle>> Submit(
      GenerationRequest request, std::shared_ptr<GenerationListener> listener) override;
  Load load() const override;
  int max_sequence_tokens() const override { return options_.max_sequence_tokens; }

 private:
  friend class Lane;

  Scheduler(const SchedulerOptions& options, SchedulerObserver* observer);

  // For lanes. The next waiting sequence if this lane is the one to take it, else null.
  std::shared_ptr<Sequence> Take(int lane);
  // It could not start, or not go on: back to its place in the queue.
  void PutBack(int lane, std::shared_ptr<Sequence> sequence, bool found_no_kv_blocks);
  void Insert(std::shared_ptr<Sequence> sequence) ABSL_EXCLUSIVE_LOCKS_REQUIRED(mu_);
  void Release(int lane, int n_ended);
  void SetWaitingForExpert(int lane, int n);
  // Ends waiting sequences that were cancelled or are out of time.
  void SweepWaiting();
  // Counts up with every submission, cancellation and ending. A lane reads it before it looks for
  // work and waits for the next one if there was none, so that nothing slips in between. It is at
  // work from the one to the other.
  uint64_t BeginWork(int lane);
  void AwaitNews(int lane, uint64_t seen, absl::Time until);
  bool stopping() const;
  void Notify();

  const SchedulerOptions options_;
  SchedulerObserver* const observer_;
  std::vector<std::unique_ptr<Lane>> lanes_;

  mutable absl::Mutex mu_;
  std::deque<std::shared_ptr<Sequence>> waiting_ ABSL_GUARDED_BY(mu_);  // by priority, then arrival
  std::vector<int> n_running_ ABSL_GUARDED_BY(mu_);                     // by lane
  std::vector<int> n_waiting_for_expert_ ABSL_GUARDED_BY(mu_);          // by lane
  std::vector<absl::Time> at_work_since_ ABSL_GUARDED_BY(mu_);          // by lane
  uint64_t next_id_ ABSL_GUARDED_BY(mu_) = 1;
  uint64_t news_ ABSL_GUARDED_BY(mu_) = 0;
  uint64_t kv_blocks_wanted_by_ ABSL_GUARDED_BY(mu_) = 0;  // who found none last
  bool stopping_ ABSL_GUARDED_BY(mu_) = false;
};

}  // namespace gatefold
