#include "router-service/gateway/token_bucket.h"

#include <algorithm>

namespace gatefold {

TokenBucket::TokenBucket(int64_t per_minute, absl::Time now)
    : per_minute_(per_minute), level_(static_cast<double>(per_minute)), filled_(now) {}

void TokenBucket::Fill(absl::Time now) {
  if (now <= filled_) return;  // clocks may be set back
  const double minutes = absl::FDivDuration(now - filled_, absl::Minutes(1));
  const auto full = static_cast<double>(per_minute_);
  level_ = std::min(full, level_ + minutes * full);
  filled_ = now;
}

absl::Duration TokenBucket::Take(int64_t n, absl::Time now) {
  Fill(now);
  const auto needed = static_cast<double>(std::min(n, per_minute_));
  // Rounding must not make somebody wait twice who waited as long as he was told.
  const double missing = needed - level_;
  if (missing <= 1e-6) {
    level_ -= static_cast<double>(n);
    return absl::ZeroDuration();
  }
  const absl::Duration wait = absl::Minutes(1) * (missing / static_cast<double>(per_minute_));
  return absl::Ceil(wait, absl::Milliseconds(1));
}

void TokenBucket::GiveBack(int64_t n) {
  level_ = std::min(static_cast<double>(per_minute_), level_ + static_cast<double>(n));
}

}  // namespace gatefold
