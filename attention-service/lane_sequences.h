#pragma once

#include <atomic>
#include <map>
#include <memory>
#include <utility>

#include "absl/base/thread_annotations.h"
#include "absl/synchronization/mutex.h"
#include "attention-service/sequence_table.h"

namespace gatefold {

// The sequences of one generation of a router lane. Its streams (one for small frames, one for
// bulk) share them, and they are freed when the last of these streams ends or one of the next
// comes.
struct LaneSequences {
  LaneSequences(PrefixCache* cache, std::atomic<int>* n_open) : table(cache, n_open) {}
  absl::Mutex mu;  // a well-behaved lane has one call in flight; others are made to
  SequenceTable table ABSL_GUARDED_BY(mu);
};

// Finds the sequences of a lane by (router_id, lane, generation). Threads: safe.
class LaneRegistry {
 public:
  explicit LaneRegistry(PrefixCache* cache) : cache_(cache) {}
  // Waits for an earlier generation's call, if one is computed. Of one that is over: none, and none
  // to be found by others.
  std::shared_ptr<LaneSequences> Join(uint64_t router_id, uint32_t lane, uint32_t generation);
  // Of all lanes; never waits for one that computes.
  int n_sequences() const { return n_sequences_; }

 private:
  PrefixCache* const cache_;
  std::atomic<int> n_sequences_{0};
  absl::Mutex mu_;
  struct Latest {
    uint32_t generation = 0;
    std::weak_ptr<LaneSequences> sequences;
  };
  std::map<std::pair<uint64_t, uint32_t>, Latest> lanes_ ABSL_GUARDED_BY(mu_);
};

}  // namespace gatefold
