#pragma once

#include <string>

#include "absl/base/thread_annotations.h"
#include "absl/container/flat_hash_map.h"
#include "absl/strings/string_view.h"
#include "absl/synchronization/mutex.h"
#include "absl/time/time.h"
#include "gatefold/metrics/registry.h"

namespace gatefold {

// The router's steps. Threads: safe.
class StepMetrics {
 public:
  explicit StepMetrics(Registry* registry);  // which outlives this

  // One phase's time in one step, summed over the layers. `phase` is one of a fixed few names.
  void Observe(absl::string_view phase, absl::Duration time);
  void ObserveRows(int n_rows);
  void ObserveFailed();
  // A running sequence is computed again: "preempted" or "moved".
  void ObserveRecomputed(const std::string& reason);

 private:
  Registry* const registry_;
  prometheus::Histogram* const rows_;
  prometheus::Counter* const failed_;
  absl::Mutex mu_;
  absl::flat_hash_map<std::string, prometheus::Histogram*> phases_ ABSL_GUARDED_BY(mu_);
};

}  // namespace gatefold
