#pragma once

#include <cstdint>
#include <functional>
#include <memory>
#include <optional>
#include <string>

#include "absl/base/thread_annotations.h"
#include "absl/status/status.h"
#include "absl/synchronization/mutex.h"
#include "absl/time/time.h"
#include "gatefold/rpc/call_context.h"
#include "router-service/gateway/api_keys.h"
#include "router-service/gateway/token_bucket.h"

namespace gatefold {

// Whoever holds one API key: its name, its rights and what is left of its limits. Threads: safe.
class Caller final : public Principal {
 public:
  Caller(const ApiKey& key, std::function<absl::Time()> clock);

  const std::string& name() const override { return key_.name; }
  const ApiKey& key() const { return key_; }

  // kInvalidArgument that names the field where the key may not ask for so high a priority.
  absl::Status CheckPriority(int32_t priority) const;

  // kResourceExhausted (RATE_LIMITED) with the delay after which it would be granted.
  absl::Status TakeRequest();
  absl::Status TakeTokens(int64_t n);
  void GiveBackTokens(int64_t n);

 private:
  absl::Status Take(std::optional<TokenBucket>* bucket, const char* what, int64_t n)
      ABSL_EXCLUSIVE_LOCKS_REQUIRED(mu_);

  const ApiKey key_;
  const std::function<absl::Time()> clock_;
  absl::Mutex mu_;
  std::optional<TokenBucket> requests_ ABSL_GUARDED_BY(mu_);  // none: no limit
  std::optional<TokenBucket> tokens_ ABSL_GUARDED_BY(mu_);
};

// The tokens that a request may come to, taken before it starts, so that many at once cannot go
// past the limit together. What it did not use goes back at its end. Threads: one at a time.
class TokenHold {
 public:
  TokenHold() = default;  // of nobody
  TokenHold(const TokenHold&) = delete;
  TokenHold& operator=(const TokenHold&) = delete;
  ~TokenHold() { Settle(0); }

  // `caller` may be null: no limits.
  absl::Status Take(std::shared_ptr<Caller> caller, int64_t n);
  // Once; later ones do nothing.
  void Settle(int64_t n_used);

 private:
  std::shared_ptr<Caller> caller_;
  int64_t n_held_ = 0;
};

}  // namespace gatefold
