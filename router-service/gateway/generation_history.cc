#include "router-service/gateway/generation_history.h"

#include <utility>

namespace gatefold {

void GenerationHistory::Add(Trace trace) {
  const int64_t bytes = static_cast<int64_t>(trace.ByteSizeLong());
  std::deque<Kept> forgotten;  // freed without the lock
  Kept kept = {std::make_shared<const Trace>(std::move(trace)), bytes};
  absl::MutexLock lock(&mu_);
  bytes_ += bytes;
  kept_.push_back(std::move(kept));
  while (static_cast<int>(kept_.size()) > max_generations_ || bytes_ > max_bytes_) {
    bytes_ -= kept_.front().bytes;
    forgotten.push_back(std::move(kept_.front()));
    kept_.pop_front();
  }
}

std::shared_ptr<const GenerationHistory::Trace> GenerationHistory::Find(
    absl::string_view request_id, const std::optional<std::string>& caller) const {
  absl::MutexLock lock(&mu_);
  for (auto kept = kept_.rbegin(); kept != kept_.rend(); ++kept) {
    const Trace& trace = *kept->trace;
    if (trace.request_id() == request_id && (!caller.has_value() || trace.caller() == *caller)) {
      return kept->trace;
    }
  }
  return nullptr;
}

}  // namespace gatefold
