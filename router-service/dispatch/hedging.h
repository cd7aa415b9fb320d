#pragma once

#include <algorithm>

#include "absl/status/status.h"
#include "absl/time/time.h"

namespace gatefold {

// When a call is sent a second time, to a replica: once it is later than twice what that replica
// usually takes. The first answer wins.
struct HedgeOptions {
  bool enabled = true;
  double quantile = 0.95;                        // of the replica's recent latencies: its usual one
  absl::Duration floor = absl::Milliseconds(5);  // nothing is late before that
  double budget = 0.1;  // hedges per call in the long run, at most: overload is not made worse

  absl::Status Validate() const;
};

// Lets a burst of hedges through, and in the long run one per 1 / ratio calls. Threads: one.
class HedgeBudget {
 public:
  static constexpr double kBurst = 16;

  explicit HedgeBudget(double ratio) : ratio_(ratio) {}
  void OnCall() { tokens_ = std::min(kBurst, tokens_ + ratio_); }
  // All of `n` or none. False: not now.
  bool Take(int n) {
    if (tokens_ < n) return false;
    tokens_ -= n;
    return true;
  }

 private:
  const double ratio_;
  double tokens_ = kBurst;
};

}  // namespace gatefold
