#pragma once

#include <cstdint>
#include <deque>
#include <string>
#include <vector>

#include "absl/base/thread_annotations.h"
#include "absl/synchronization/mutex.h"
#include "absl/time/time.h"
#include "router-service/dispatch/dispatch_counters.h"
#include "router-service/dispatch/routing_table.h"

namespace gatefold {

// How evenly shards are used: rows per second of the busiest shard that holds experts over the mean
// of all that do, over the last minute. It keeps samples of the counts by itself, so that nobody
// who reads it changes what others read.
// Threads: safe.
class ShardBalance {
 public:
  struct Shard {
    std::string address;
    bool holds_experts = false;  // and answers, and matches
    uint64_t n_rows = 0;         // counts up
  };

  // A sample is due every few seconds. To be asked often, at each step, say.
  bool Due(absl::Time now) const;
  // By index, as in the routing table.
  void Note(absl::Time now, const std::vector<Shard>& shards);

  // 1: all alike, or nothing was served. A shard counts from when it holds experts, once that is a
  // second or more ago.
  double Ratio(absl::Time now, const std::vector<Shard>& shards);

 private:
  struct Sample {
    absl::Time at;
    std::vector<Shard> shards;
  };
  // The oldest sample from which on the shard of this index held experts at this address.
  const Sample* Since(size_t index, const Shard& shard) const ABSL_EXCLUSIVE_LOCKS_REQUIRED(mu_);
  void NoteLocked(absl::Time now, const std::vector<Shard>& shards)
      ABSL_EXCLUSIVE_LOCKS_REQUIRED(mu_);

  mutable absl::Mutex mu_;
  // Oldest first; of those older than the window only the newest.
  std::deque<Sample> samples_ ABSL_GUARDED_BY(mu_);
};

// All shards of the table and the rows they served.
std::vector<ShardBalance::Shard> ShardsOf(const RoutingTable& table,
                                          const std::vector<DispatchCounters::Count>& rows_served);

}  // namespace gatefold
