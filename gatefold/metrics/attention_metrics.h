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

  void ObserveLookUp(int n_hit_tokens, int n_miss_tokens);

  // Read at each scrape; see Registry::Watch. Blocks that are neither free nor cached are used.
  void WatchKvBlocks(int n_blocks, std::function<double()> n_free,
                     std::function<double()> n_cached);
  void WatchDevice(std::function<double()> device_seconds);
  void WatchSequences(std::function<double()> n_sequences);

 private:
  Registry* const registry_;
  prometheus::Counter* const compute_;
  prometheus::Counter* const tokens_;
  prometheus::Histogram* const queue_;
  prometheus::Counter* const hits_;
  prometheus::Counter* const misses_;
};

}  // namespace gatefold
