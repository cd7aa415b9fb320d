#include "router-service/gateway/live_requests.h"

#include <utility>

#include "absl/strings/str_cat.h"
#include "gatefold/base/errors.h"
#include "router-service/gateway/random_bits.h"

namespace gatefold {

absl::StatusOr<std::unique_ptr<LiveRequests::Lease>> LiveRequests::Claim(
    absl::string_view id, absl::Duration retry_delay, std::function<void()> cancel) {
  std::string key(id);
  if (key.empty()) {
    key = absl::StrCat(absl::Hex(RandomBits(), absl::kZeroPad16),
                       absl::Hex(RandomBits(), absl::kZeroPad16));
  }
  absl::MutexLock lock(&mu_);
  if (cancel_by_id_.contains(key)) return DuplicateRequest(key);
  if (static_cast<int>(cancel_by_id_.size()) >= capacity_) return QueueFull(retry_delay);
  cancel_by_id_.emplace(key, std::move(cancel));
  return std::make_unique<Lease>(this, std::move(key));
}

bool LiveRequests::Cancel(absl::string_view id) {
  std::function<void()> cancel;
  {
    absl::MutexLock lock(&mu_);
    const auto found = cancel_by_id_.find(id);
    if (found == cancel_by_id_.end()) return false;
    cancel = found->second;
  }
  cancel();
  return true;
}

bool LiveRequests::Contains(absl::string_view id) const {
  absl::MutexLock lock(&mu_);
  return cancel_by_id_.contains(id);
}

int LiveRequests::size() const {
  absl::MutexLock lock(&mu_);
  return static_cast<int>(cancel_by_id_.size());
}

void LiveRequests::Release(const std::string& id) {
  absl::MutexLock lock(&mu_);
  cancel_by_id_.erase(id);
}

}  // namespace gatefold
