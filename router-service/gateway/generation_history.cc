#include "router-service/gateway/generation_history.h"

#include <utility>

#include "gatefold/base/check.h"

namespace gatefold {

void GenerationHistory::Add(const Trace& trace) {
  Kept kept = {trace.request_id(), trace.caller(), trace.SerializeAsString()};
  std::deque<Kept> forgotten;  // freed without the lock
  absl::MutexLock lock(&mu_);
  bytes_ += static_cast<int64_t>(kept.wire.size());
  kept_.push_back(std::move(kept));
  while (static_cast<int>(kept_.size()) > max_generations_ || bytes_ > max_bytes_) {
    bytes_ -= static_cast<int64_t>(kept_.front().wire.size());
    forgotten.push_back(std::move(kept_.front()));
    kept_.pop_front();
  }
}

std::optional<GenerationHistory::Trace> GenerationHistory::Find(
    absl::string_view request_id, const std::optional<std::string>& caller) const {
  absl::MutexLock lock(&mu_);
  for (auto kept = kept_.rbegin(); kept != kept_.rend(); ++kept) {
    if (kept->request_id != request_id || (caller.has_value() && kept->caller != *caller)) continue;
    Trace trace;
    GF_CHECK(trace.ParseFromString(kept->wire));
    return trace;
  }
  return std::nullopt;
}

}  // namespace gatefold
