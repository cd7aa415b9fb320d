#include "router-service/gateway/live_requests.h"

#include <algorithm>
#include <utility>
#include <vector>

#include "absl/strings/str_cat.h"
#include "gatefold/base/errors.h"
#include "router-service/gateway/random_bits.h"

namespace gatefold {

absl::StatusOr<std::unique_ptr<LiveRequests::Lease>> LiveRequests::Claim(
    absl::string_view id, absl::Duration retry_delay, std::function<void()> cancel,
    const std::string& caller) {
  Key key(caller, id);
  if (id.empty()) {
    key.second = absl::StrCat(absl::Hex(RandomBits(), absl::kZeroPad16),
                              absl::Hex(RandomBits(), absl::kZeroPad16));
  }
  absl::MutexLock lock(&mu_);
  if (live_.contains(key)) return DuplicateRequest(key.second);
  if (static_cast<int>(live_.size()) >= capacity_) return QueueFull(retry_delay);
  live_.emplace(key, std::move(cancel));
  return std::make_unique<Lease>(this, std::move(key));
}

bool LiveRequests::Cancel(absl::string_view id) {
  std::vector<std::function<void()>> all;
  {
    absl::MutexLock lock(&mu_);
    for (const auto& [key, cancel] : live_) {
      if (key.second == id) all.push_back(cancel);
    }
  }
  for (const auto& cancel : all) cancel();
  return !all.empty();
}

bool LiveRequests::Contains(absl::string_view id, const std::optional<std::string>& caller) const {
  absl::MutexLock lock(&mu_);
  return std::any_of(live_.begin(), live_.end(), [&](const auto& each) {
    return each.first.second == id && (!caller.has_value() || each.first.first == *caller);
  });
}

int LiveRequests::size() const {
  absl::MutexLock lock(&mu_);
  return static_cast<int>(live_.size());
}

void LiveRequests::Release(const Key& key) {
  absl::MutexLock lock(&mu_);
  live_.erase(key);
}

}  // namespace gatefold
