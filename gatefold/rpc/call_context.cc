#include "gatefold/rpc/call_context.h"

namespace gatefold {

absl::string_view CallContext::Metadata(absl::string_view key) const {
  for (const auto& [name, value] : metadata_) {
    if (name == key) return value;
  }
  return "";
}

bool CallContext::cancelled() const {
  absl::MutexLock lock(&mu_);
  return cancelled_;
}

void CallContext::OnCancel(std::function<void()> callback) {
  {
    absl::MutexLock lock(&mu_);
    if (!cancelled_) {
      if (!ended_) on_cancel_ = std::move(callback);
      return;
    }
  }
  callback();
}

void CallContext::Cancelled() {
  std::function<void()> callback;
  {
    absl::MutexLock lock(&mu_);
    cancelled_ = true;
    callback = std::move(on_cancel_);
    on_cancel_ = nullptr;
  }
  if (callback) callback();
}

void CallContext::Ended() {
  std::function<void()> forgotten;  // what it captured is destroyed outside of the lock
  absl::MutexLock lock(&mu_);
  ended_ = true;
  forgotten = std::move(on_cancel_);
  on_cancel_ = nullptr;
}

}  // namespace gatefold
