#pragma once

#include <cstdint>
#include <functional>
#include <string>
#include <vector>

#include "absl/base/thread_annotations.h"
#include "absl/container/flat_hash_map.h"
#include "absl/status/status.h"
#include "absl/synchronization/mutex.h"
#include "absl/time/time.h"
#include "gatefold/metrics/registry.h"

namespace gatefold {

// What callers of the public API get. Threads: safe.
class RequestMetrics {
 public:
  explicit RequestMetrics(Registry* registry);  // which outlives this

  // Read at each scrape; see Registry::Watch.
  void WatchRunning(std::function<double()> n_running);
  void WatchWaiting(std::function<double()> n_waiting);
  void WatchWaitingForExpert(std::function<double()> n_waiting);

  void ObserveFirstToken(absl::Duration ttft);
  void ObserveNextToken(absl::Duration itl);

  // What was observed so far: counts[i] values up to upper_bounds[i] and above the bound before,
  // and one count more for those above all.
  struct Latencies {
    std::vector<double> upper_bounds;
    std::vector<uint64_t> counts;
    double sum = 0;
  };
  Latencies FirstTokens() const;
  Latencies NextTokens() const;

  struct Request {
    absl::Status status;
    int n_prompt_tokens = 0;
    int n_output_tokens = 0;
    int n_truncated_tokens = 0;
    bool mixed_numerics = false;
    absl::Duration queue = absl::InfiniteDuration();  // Infinite: took part in no step
    absl::Duration end_to_end;
  };
  // Requests that took part in no step count in requests_total alone: a flood of refusals must not
  // make latencies look good.
  void ObserveEnd(const Request& request);

 private:
  prometheus::Counter* Outcome(const std::string& outcome);

  Registry* const registry_;
  prometheus::Histogram* const ttft_;
  prometheus::Histogram* const itl_;
  prometheus::Histogram* const e2e_;
  prometheus::Histogram* const queue_;
  prometheus::Histogram* const prompt_tokens_;
  prometheus::Histogram* const generation_tokens_;
  prometheus::Counter* const truncated_tokens_;
  prometheus::Counter* const mixed_numerics_;
  absl::Mutex mu_;
  absl::flat_hash_map<std::string, prometheus::Counter*> outcomes_ ABSL_GUARDED_BY(mu_);
};

}  // namespace gatefold
