#include "router-service/gateway/caller.h"

#include <algorithm>
#include <utility>

#include "absl/strings/str_cat.h"
#include "gatefold/base/errors.h"
#include "gatefold/base/status_macros.h"

namespace gatefold {

Caller::Caller(const ApiKey& key, std::function<absl::Time()> clock)
    : key_(key), clock_(std::move(clock)) {
  const absl::Time now = clock_();
  if (key.requests_per_minute > 0) requests_.emplace(key.requests_per_minute, now);
  if (key.tokens_per_minute > 0) tokens_.emplace(key.tokens_per_minute, now);
}

absl::Status Caller::Take(std::optional<TokenBucket>* bucket, const char* what, int64_t n) {
  if (!bucket->has_value()) return absl::OkStatus();
  const absl::Duration wait = (*bucket)->Take(n, clock_());
  if (wait == absl::ZeroDuration()) return absl::OkStatus();
  return RateLimited(what, (*bucket)->per_minute(), wait);
}

absl::Status Caller::CheckPriority(int32_t priority) const {
  if (!key_.max_priority.has_value() || priority <= *key_.max_priority) return absl::OkStatus();
  return BadField("priority",
                  absl::StrCat("is ", priority, ", the limit of this key is ", *key_.max_priority));
}

absl::Status Caller::TakeRequest() {
  absl::MutexLock lock(&mu_);
  return Take(&requests_, "requests", 1);
}

absl::Status Caller::TakeTokens(int64_t n) {
  absl::MutexLock lock(&mu_);
  return Take(&tokens_, "tokens", n);
}

void Caller::GiveBackTokens(int64_t n) {
  absl::MutexLock lock(&mu_);
  if (tokens_.has_value()) tokens_->GiveBack(n);
}

absl::Status TokenHold::Take(std::shared_ptr<Caller> caller, int64_t n) {
  if (caller == nullptr) return absl::OkStatus();
  GF_RETURN_IF_ERROR(caller->TakeTokens(n));
  caller_ = std::move(caller);
  n_held_ = n;
  return absl::OkStatus();
}

void TokenHold::Settle(int64_t n_used) {
  if (caller_ == nullptr) return;
  caller_->GiveBackTokens(std::max<int64_t>(0, n_held_ - n_used));
  caller_.reset();
}

}  // namespace gatefold
