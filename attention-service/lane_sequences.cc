#include "attention-service/lane_sequences.h"

namespace gatefold {

std::shared_ptr<LaneSequences> LaneRegistry::Join(uint64_t router_id, uint32_t lane) {
  absl::MutexLock lock(&mu_);
  std::erase_if(lanes_, [](const auto& entry) { return entry.second.expired(); });
  std::weak_ptr<LaneSequences>& known = lanes_[{router_id, lane}];
  std::shared_ptr<LaneSequences> sequences = known.lock();
  if (sequences == nullptr) {
    sequences = std::make_shared<LaneSequences>(cache_, &n_sequences_);
    known = sequences;
  }
  return sequences;
}

}  // namespace gatefold
