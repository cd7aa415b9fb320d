#include "router-service/gateway/live_requests.h"

#include <utility>

#include "absl/strings/str_cat.h"
#include "gatefold/base/errors.h"
#include "router-service/gateway/random_bits.h"

namespace gatefold {

absl::StatusOr<std::unique_ptr<LiveRequests::Lease>> LiveRequests::Claim(
    absl::string_view id, absl::Duration retry_delay, std::function<void()> cancel,
    const std::string& caller) {
  std::string key(id);
  if (key.empty()) {
    key = absl::StrCat(absl::Hex(RandomBits(), absl::kZeroPad16),
                       absl::Hex(RandomBits(), absl::kZeroPad16));
  }
  absl::MutexLock lock(&mu_);
  if (live_.contains(key)) return DuplicateRequest(key);
  if (static_cast<int>(live_.size()) >= capacity_) return QueueFull(retry_delay);
  live_.emplace(key, Live{std::move(cancel), caller});
  return std::make_unique<Lease>(this, std::move(key));
}

bool LiveRequests::Cancel(absl::string_view id) {
  std::function<void()> cancel;
  {
    absl::MutexLock lock(&mu_);
    const auto found = live_.find(id);
    if (found == live_.end()) return false;
    cancel = found->second.cancel;
  }
  cancel();
  return true;
}

bool LiveRequests::Contains(absl::string_view id, const std::optional<std::string>& caller) const {
  absl::MutexLock lock(&mu_);
  const auto found = live_.find(id);
  return found != live_.end() && (!caller.has_value() || found->second.caller == *caller);
}

int LiveRequests::size() const {
  absl::MutexLock lock(&mu_);
  return static_cast<int>(live_.size());
}

void LiveRequests::Release(const std::string& id) {
  absl::MutexLock lock(&mu_);
  live_.erase(id);
}

}  // namespace gatefold
