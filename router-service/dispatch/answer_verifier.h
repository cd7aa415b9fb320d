#pragma once

#include <random>
#include <string>
#include <vector>

#include "absl/time/time.h"
#include "router-service/dispatch/dispatch_counters.h"
#include "router-service/dispatch/expert_call.h"

namespace gatefold {

// Experts are pure: two shards give the same bits, and where they do not, one of them is wrong
// (other weights, a faulty machine). Draws the answers that are computed again on a replica, and
// compares. Threads: the lane's.
class AnswerVerifier {
 public:
  // Verifications of one lane that may wait for their answers; more are not begun.
  static constexpr int kMaxPending = 32;

  // `share`: of all calls, within 0 and 1. The counters outlive the verifier.
  AnswerVerifier(double share, uint64_t seed, DispatchCounters* counters)
      : share_(share), random_(seed), counters_(counters) {}

  bool enabled() const { return share_ > 0; }
  bool Draw() { return enabled() && std::uniform_real_distribution<double>()(random_) < share_; }

  // again: [slots, d_model], what `second` answered to `call`. Counts, and logs differences with
  // both shards: one a second, with the number of those that were not logged.
  void Compare(const ExpertCall& call, const std::vector<float>& again, int d_model,
               const std::string& first, const std::string& second);

 private:
  const double share_;
  std::mt19937_64 random_;
  DispatchCounters* const counters_;
  absl::Time next_report_ = absl::InfinitePast();
  uint64_t n_unreported_ = 0;
};

}  // namespace gatefold
