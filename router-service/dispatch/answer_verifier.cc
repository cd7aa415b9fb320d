#include "router-service/dispatch/answer_verifier.h"

#include <cstring>
#include <utility>

#include "absl/time/clock.h"
#include "gatefold/base/log.h"

namespace gatefold {
namespace {
constexpr absl::Duration kReportInterval = absl::Seconds(1);
}  // namespace

void AnswerVerifier::Compare(const ExpertCall& call, const std::vector<float>& again, int d_model,
                             const std::string& first, const std::string& second) {
  size_t slot = 0;
  for (size_t i = 0; i < call.experts.size(); ++i) {
    uint64_t n_different = 0;
    for (uint32_t n = 0; n < call.n_rows_of_expert[i]; ++n, ++slot) {
      const size_t at = slot * d_model;
      // As bits: a NaN must equal itself, and zeros of two signs must not.
      n_different += std::memcmp(&call.expected[at], &again[at], d_model * sizeof(float)) != 0;
    }
    counters_->verified_different += n_different;
    counters_->verified_equal += call.n_rows_of_expert[i] - n_different;
    if (n_different == 0) continue;
    if (absl::Now() < next_report_) {
      ++n_unreported_;
      continue;
    }
    next_report_ = absl::Now() + kReportInterval;
    LogEvent(LogLevel::kError, "answers_differ",
             {{"shard", first},
              {"other_shard", second},
              {"layer", call.key.layer()},
              {"expert", call.experts[i]},
              {"rows", n_different},
              {"of", call.n_rows_of_expert[i]},
              {"more_before", std::exchange(n_unreported_, 0)}});
  }
}

}  // namespace gatefold
