#pragma once

#include <functional>

#include "absl/time/time.h"
#include "gatefold/metrics/registry.h"

namespace gatefold {

// One attention-service's work and KV cache. Threads: safe.
class AttentionMetrics {
 public:
  explicit AttentionMetrics(Registry* registry);  // which outlives this

  void ObserveCall(int n_rows, absl::Duration queue, absl::Duration compute);

  // Read at each scrape; see Registry::Watch.
  void WatchKvBlocks(int n_blocks, std::function<double()> n_free);
  void WatchSequences(std::function<double()> n_sequences);

 private:
  Registry* const registry_;
  prometheus::Counter* const compute_;
  prometheus::Counter* const tokens_;
  prometheus::Histogram* const queue_;
};

}  // namespace gatefold
