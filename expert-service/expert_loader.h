#pragma once

#include <cstdint>
#include <functional>
#include <map>
#include <set>
#include <thread>
#include <vector>

#include "absl/base/thread_annotations.h"
#include "absl/status/status.h"
#include "absl/synchronization/mutex.h"
#include "absl/time/time.h"
#include "expert-service/expert_backend.h"
#include "expert-service/expert_source.h"
#include "expert-service/expert_store.h"
#include "gatefold/model/expert_catalog.h"

namespace gatefold {

// What a shard with so much memory for experts tells a planner, which counts in bytes of the
// checkpoint: as many of them as surely fit, as `backend` keeps them. 0: not limited, for both.
uint64_t CheckpointCapacity(uint64_t memory_bytes, const ExpertCatalog& catalog,
                            const ExpertBackend& backend);

// InvalidArgument for memory in which not one expert fits: such a shard would never get any.
absl::Status CheckCapacity(uint64_t memory_bytes, const ExpertCatalog& catalog,
                           const ExpertBackend& backend);

// Makes a store hold what a planner assigned last. What is not assigned any more is dropped first,
// so that there is room: a planner takes an expert away only when it is held elsewhere. Then what
// is missing is loaded, several experts at once, on threads of the loader's own, which step back
// for those that compute: computing never waits for loading, and each expert serves as soon as it
// is there. What cannot be loaded (no memory left on a device, nobody gives it) is logged and tried
// again, later each time, since what it lacks may come back. Threads: safe.
class ExpertLoader {
 public:
  struct Options {
    uint64_t capacity_bytes = 0;  // 0: not limited
    // Called after every expert that came or went, on a thread of the loader's and with no lock
    // held.
    std::function<void()> on_change;
    // Called when all that is assigned is held, with how long it took; with a lock held, so it must
    // be quick.
    std::function<void(absl::Duration)> on_complete;
    int n_threads = 4;  // experts that are loaded at the same time
    // Until an expert that could not be loaded is tried again: the first time, and at most.
    absl::Duration first_retry = absl::Milliseconds(250);
    absl::Duration last_retry = absl::Seconds(5);
  };

  // They outlive the loader.
  ExpertLoader(const ExpertCatalog* catalog, ExpertSource* source, ExpertStore* store,
               Options options);
  // Ends after the experts that are being loaded.
  ~ExpertLoader();

  // Accepts it and returns; the source gets to know the holders. Errors, with nothing changed:
  //   FailedPrecondition  the epoch is older than the last one, or the same with other experts
  //   ResourceExhausted   the experts have more bytes than the capacity
  absl::Status Assign(uint64_t epoch, std::vector<ExpertId> experts,
                      std::vector<ExpertHolder> holders = {});

  uint64_t epoch() const;    // of the last assignment; 0: none yet
  size_t n_loading() const;  // assigned and not yet held
  uint64_t capacity_bytes() const { return options_.capacity_bytes; }

  // True once nothing is left to do and on_change has been told so; false at the deadline.
  bool AwaitIdle(absl::Time deadline) const;

 private:
  struct Retry {
    absl::Time at;
    absl::Duration wait;
  };
  // What was loaded since nothing was missing, for the log.
  struct Batch {
    absl::Time start = absl::InfiniteFuture();  // when something came to be missing
    size_t n_experts = 0;
    uint64_t bytes[kLoadedFroms] = {};
  };

  void Run();
  void Drop(const std::vector<ExpertId>& experts) ABSL_EXCLUSIVE_LOCKS_REQUIRED(mu_);
  void Load(ExpertId id) ABSL_EXCLUSIVE_LOCKS_REQUIRED(mu_);
  bool Complete() const ABSL_EXCLUSIVE_LOCKS_REQUIRED(mu_);  // all that is assigned is held
  std::vector<ExpertId> ToDrop() const ABSL_EXCLUSIVE_LOCKS_REQUIRED(mu_);
  // The next expert to load that has room beside what is held and on its way; null: none now.
  // `again`: when to look again, if nothing else happens before.
  const ExpertId* NextToLoad(absl::Time* again) const ABSL_EXCLUSIVE_LOCKS_REQUIRED(mu_);
  void Keep(ExpertId id, LoadedExpert loaded) ABSL_EXCLUSIVE_LOCKS_REQUIRED(mu_);
  // Logs one a second at most: thousands may be waiting for the same thing.
  void PutOff(ExpertId id, const absl::Status& why) ABSL_EXCLUSIVE_LOCKS_REQUIRED(mu_);
  uint64_t Bytes(ExpertId id) const { return catalog_->ExpertBytes(id.layer, id.expert); }

  const ExpertCatalog* const catalog_;
  ExpertSource* const source_;
  ExpertStore* const store_;
  const Options options_;

  mutable absl::Mutex mu_;
  uint64_t epoch_ ABSL_GUARDED_BY(mu_) = 0;
  std::set<ExpertId> assigned_ ABSL_GUARDED_BY(mu_);
  std::set<ExpertId> held_ ABSL_GUARDED_BY(mu_);  // the store's, as far as the loader has come
  std::set<ExpertId> loading_ ABSL_GUARDED_BY(mu_);
  std::map<ExpertId, Retry> retries_ ABSL_GUARDED_BY(mu_);
  absl::Time put_off_logged_ ABSL_GUARDED_BY(mu_) = absl::InfinitePast();
  uint64_t taken_bytes_ ABSL_GUARDED_BY(mu_) = 0;  // by held_ and loading_
  uint64_t n_changes_ ABSL_GUARDED_BY(mu_) = 0;    // of the above: what a waiting thread looks at
  Batch batch_ ABSL_GUARDED_BY(mu_);
  // Threads between the start of some work and its being told.
  int n_busy_ ABSL_GUARDED_BY(mu_) = 0;
  bool stopping_ ABSL_GUARDED_BY(mu_) = false;
  std::vector<std::thread> threads_;
};

}  // namespace gatefold
