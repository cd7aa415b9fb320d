#pragma once

#include <memory>
#include <thread>
#include <vector>

#include "absl/status/status.h"
#include "absl/time/time.h"
#include "router-service/scheduler/lane_log.h"
#include "router-service/scheduler/scheduler.h"
#include "router-service/scheduler/sequence.h"

namespace gatefold {

// A micro-batch that walks the layers on its own: two or more lanes overlap attention and experts.
// Owns its engine and its running sequences; everything but the constructor and Join happens on
// its thread.
class Lane {
 public:
  Lane(int index, Scheduler* scheduler, LaneEngine engine);
  void Start();
  void Join() {  // a second time does nothing
    if (thread_.joinable()) thread_.join();
  }

 private:
  void Run();
  void Admit();
  absl::Status Open(Sequence* sequence);
  // None took a sequence that was `tried` then: whether to wait for one. For step_retry_timeout;
  // from then on requests end, as long as they come one after another.
  bool AwaitAttention(const absl::Status& why, absl::Time tried);
  void SweepRunning();
  // The next step: a row of every decoding sequence, then chunks of prompts, oldest first.
  Step Next();
  void Commit(const StepResult& result);
  // Decides who is tried again, who is computed again and who has been tried long enough.
  void Fail(const absl::Status& status);
  // `lacks`: for want of what; empty: of nothing.
  void FailSequence(Sequence* sequence, const absl::Status& status,
                    std::vector<MissingExpert> lacks, absl::Time now);
  // Its keys and values are gone: opens it anew, or lets it wait until there is room.
  void Recompute(Sequence* sequence);
  // KV blocks ran out where the starved have their own. Of those who have some there, the last in
  // line gives up all of its own and waits, a starved one too if it is the last.
  void Preempt(const std::vector<const Sequence*>& starved);
  void PreemptLastAt(int place);
  void Park(Sequence* sequence, RecomputeReason reason);
  bool Parked(const Sequence* sequence) const;
  // Hands parked sequences back to the queue.
  void DropParked();
  // Whether it must not ride yet.
  bool Held(Sequence* sequence, absl::Time now) const;
  // Says how many sequences wait for an expert.
  void ReportWaits(absl::Time now);
  void DropEnded();

  const int index_;
  Scheduler* const scheduler_;
  LaneEngine engine_;
  LaneLog log_;
  std::vector<std::shared_ptr<Sequence>> running_;  // first in line first
  std::vector<Sequence*> parked_;                   // of running_: to go back to the queue
  std::vector<Sequence::Share> shares_;             // of the step under way
  uint64_t next_step_ = 1;
  bool starving_ = false;                             // nobody has run since one found no KV block
  absl::Time next_admission_ = absl::InfinitePast();  // the last one found no KV blocks
  absl::Time attention_lost_ = absl::InfiniteFuture();  // since then no service opens a sequence
  absl::Time attention_missed_ = absl::InfinitePast();  // when that showed last
  bool held_ = false;  // some of `running_` did not ride in the last step
  int n_waiting_for_expert_ = 0;
  std::thread thread_;
};

}  // namespace gatefold
