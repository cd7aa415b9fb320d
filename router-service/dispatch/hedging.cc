#include "router-service/dispatch/hedging.h"

#include "absl/strings/str_cat.h"

namespace gatefold {

absl::Status HedgeOptions::Validate() const {
  if (!(quantile >= 0.5 && quantile < 1)) {
    return absl::InvalidArgumentError(
        absl::StrCat("--hedge-quantile is ", quantile, ", must be at least 0.5 and below 1"));
  }
  if (floor < absl::Microseconds(100) || floor > absl::Seconds(10)) {
    return absl::InvalidArgumentError(absl::StrCat("--hedge-floor is ", absl::FormatDuration(floor),
                                                   ", must be within 100us and 10s"));
  }
  if (!(budget >= 0 && budget <= 1)) {
    return absl::InvalidArgumentError(
        absl::StrCat("--hedge-budget is ", budget, ", must be within 0 and 1"));
  }
  return absl::OkStatus();
}

}  // namespace gatefold
