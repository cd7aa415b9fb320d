#pragma once

#include <cstdint>
#include <functional>
#include <set>
#include <thread>
#include <vector>

#include "absl/base/thread_annotations.h"
#include "absl/status/status.h"
#include "absl/synchronization/mutex.h"
#include "absl/time/time.h"
#include "expert-service/expert_store.h"
#include "gatefold/model/model_weights.h"

namespace gatefold {

// Makes a store hold what a planner assigned last. What is not assigned any more is dropped first,
// so that there is room: a planner takes an expert away only when it is held elsewhere. Then what is
// missing is loaded, one expert after another, on a thread of the loader's own: computing never
// waits for it, and each expert serves as soon as it is there. What cannot be loaded (no memory left on
// a device) is logged and tried again, since what it lacks may come back.
// Threads: safe.
class ExpertLoader {
 public:
  struct Options {
    uint64_t capacity_bytes = 0;  // 0: not limited
    // Called after every expert that came or went, on the loader's thread and with no lock held.
    std::function<void()> on_change;
    absl::Duration retry_after = absl::Seconds(5);  // an expert that could not be loaded
  };

  // Weights and store outlive the loader.
  ExpertLoader(const ModelWeights* weights, ExpertStore* store, Options options);
  // Ends after the expert that is being loaded.
  ~ExpertLoader();

  // Accepts it and returns. Errors, with nothing changed:
  //   FailedPrecondition  the epoch is older than the last one, or the same with other experts
  //   ResourceExhausted   the experts have more bytes than the capacity
  absl::Status Assign(uint64_t epoch, std::vector<ExpertId> experts);

  uint64_t epoch() const;      // of the last assignment; 0: none yet
  size_t n_loading() const;    // assigned and not yet held
  uint64_t capacity_bytes() const { return options_.capacity_bytes; }

  // True once nothing is left to do and on_change has been told so; false at the deadline.
  bool AwaitIdle(absl::Time deadline) const;

 private:
  // What is to be done next.
  struct Work {
    std::vector<ExpertId> to_drop;
    std::vector<ExpertId> to_load;  // one at most
  };
  Work NextWork() const ABSL_EXCLUSIVE_LOCKS_REQUIRED(mu_);
  void Run();

  const ModelWeights* const weights_;
  ExpertStore* const store_;
  const Options options_;

  mutable absl::Mutex mu_;
  uint64_t epoch_ ABSL_GUARDED_BY(mu_) = 0;
  std::set<ExpertId> assigned_ ABSL_GUARDED_BY(mu_);
  std::set<ExpertId> held_ ABSL_GUARDED_BY(mu_);  // the store's, as far as the loader has come
  bool busy_ ABSL_GUARDED_BY(mu_) = false;  // from the start of some work until it was told
  bool stopping_ ABSL_GUARDED_BY(mu_) = false;
  std::thread thread_;
};

}  // namespace gatefold
