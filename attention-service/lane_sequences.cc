#include "attention-service/lane_sequences.h"

namespace gatefold {

std::shared_ptr<LaneSequences> LaneRegistry::Join(uint64_t router_id, uint32_t lane,
                                                  uint32_t generation) {
  std::shared_ptr<LaneSequences> sequences, earlier;
  {
    absl::MutexLock lock(&mu_);
    std::erase_if(lanes_, [](const auto& entry) { return entry.second.sequences.expired(); });
    Latest& latest = lanes_[{router_id, lane}];
    sequences = latest.sequences.lock();
    if (sequences != nullptr && latest.generation == generation) return sequences;
    const bool is_over = sequences != nullptr && latest.generation > generation;
    earlier = std::move(sequences);
    sequences = std::make_shared<LaneSequences>(cache_, &n_sequences_);
    if (is_over) return sequences;
    latest = {generation, sequences};
  }
  if (earlier != nullptr) {
    absl::MutexLock lock(&earlier->mu);
    earlier->table.CloseAll();
  }
  return sequences;
}

}  // namespace gatefold
