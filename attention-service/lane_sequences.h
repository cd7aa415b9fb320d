#pragma once

#include <atomic>
#include <map>
#include <memory>
#include <utility>

#include "absl/base/thread_annotations.h"
#include "absl/synchronization/mutex.h"
#include "attention-service/sequence_table.h"

namespace gatefold {

// The sequences of one router lane. Its streams (one for small frames, one for bulk) share them,
// and they are freed when the last of these streams ends.
struct LaneSequences {
  LaneSequences(PrefixCache* cache, std::atomic<int>* n_open) : table(cache, n_open) {}
  absl::Mutex mu;  // a well-behaved lane has one call in flight; others are made to
  SequenceTable table ABSL_GUARDED_BY(mu);
};

// Finds the sequences of a lane by (router_id, lane). Threads: safe.
class LaneRegistry {
 public:
  explicit LaneRegistry(PrefixCache* cache) : cache_(cache) {}
  std::shared_ptr<LaneSequences> Join(uint64_t router_id, uint32_t lane);
  // Of all lanes; never waits for one that computes.
  int n_sequences() const { return n_sequences_; }

 private:
  PrefixCache* const cache_;
  std::atomic<int> n_sequences_{0};
  absl::Mutex mu_;
  std::map<std::pair<uint64_t, uint32_t>, std::weak_ptr<LaneSequences>> lanes_ ABSL_GUARDED_BY(mu_);
};

}  // namespace gatefold
