#pragma once

#include <atomic>
#include <cstdint>
#include <functional>
#include <memory>
#include <vector>

#include "absl/strings/string_view.h"
#include "absl/time/time.h"
#include "gatefold/metrics/registry.h"

namespace gatefold {

// One shard's work. Threads: safe.
class ExpertMetrics {
 public:
  // n_lanes: calls that are computed at the same time at most. The registry outlives this.
  ExpertMetrics(Registry* registry, int n_layers, int n_lanes);

  // Every ObserveCallStarted is followed by one ObserveCallDone.
  void ObserveCallStarted() { ++state_->n_inflight; }
  // n_rows: (row, expert) pairs.
  void ObserveCallDone(int layer, int n_rows, absl::Duration queue, absl::Duration compute);
  // A call that was refused before any computation.
  void ObserveCallRefused() { --state_->n_inflight; }

  void SetLoadTime(absl::Duration time) { state_->load_seconds = absl::ToDoubleSeconds(time); }
  // `source`, `reason`: as in metric_table.cc.
  void ObserveLoaded(absl::string_view source, size_t n_experts, uint64_t bytes);
  void ObserveLoadFailed(absl::string_view reason);
  // Read at each scrape; see Registry::Watch.
  // (layer, expert) and its rows, for those the shard holds. One series each: thousands, for some
  // models, so it is only done on request.
  struct ExpertRows {
    int layer = 0;
    int expert = 0;
    double n_rows = 0;
  };
  void WatchExperts(std::function<std::vector<ExpertRows>()> rows);
  void WatchDevice(std::function<double()> device_seconds);
  void WatchLoadedBytes(std::function<double()> loaded_bytes);

 private:
  struct State {  // shared with the gauges
    std::atomic<int64_t> n_inflight{0};
    std::atomic<double> load_seconds{0};
  };

  Registry* const registry_;
  const std::shared_ptr<State> state_;
  prometheus::Counter* const compute_;
  prometheus::Histogram* const queue_;
  std::vector<prometheus::Counter*> tokens_;  // by layer
};

}  // namespace gatefold
