#pragma once

#include <functional>
#include <string>
#include <vector>

#include "absl/strings/string_view.h"
#include "gatefold/metrics/registry.h"

namespace gatefold {

// The router's traffic with shards, and its view of them; all of it is counted elsewhere and read
// at each scrape (see Registry::Watch). Threads: safe.
class DispatchMetrics {
 public:
  explicit DispatchMetrics(Registry* registry) : registry_(registry) {}  // which outlives this

  // (row, expert) pairs sent and not answered yet.
  void WatchQueue(std::function<double()> n_queued);
  // reason: one of a fixed few names, such as "busy" or "unreachable". Counts up.
  void WatchRetries(absl::string_view reason, std::function<double()> n_retries);
  void WatchHedges(bool won, std::function<double()> n_hedges);
  // result: equal, different, no_replica, no_answer or busy. Counts up.
  void WatchVerified(absl::string_view result, std::function<double()> n_rows);
  void WatchDegraded(std::function<double()> n_rows);
  void WatchCoverage(std::function<double()> coverage_ratio);
  void WatchPlacementEpoch(std::function<double()> epoch);
  void WatchMoves(std::function<double()> n_moves);  // counts up

  // By shard: (row, expert) pairs answered, which count up. Shards come and go.
  using ShardRows = std::vector<std::pair<std::string, double>>;
  void WatchShards(std::function<ShardRows()> rows);
  // Rows per second of the busiest shard over the mean.
  void WatchImbalance(std::function<double()> ratio);
  // By shard, too, counting up: rows, messages and bytes on the wire.
  struct ShardTraffic {
    std::function<ShardRows()> rows_sent, calls, sent_bytes, received_bytes;
  };
  void WatchTraffic(const ShardTraffic& traffic);

  // What went to each peer. Peers come and go.
  struct PeerHops {
    std::string peer;
    double n_hops = 0, seconds = 0, bytes_sent = 0, bytes_received = 0;
  };
  void WatchHops(std::function<std::vector<PeerHops>()> hops);

 private:
  Registry* const registry_;
};

}  // namespace gatefold
