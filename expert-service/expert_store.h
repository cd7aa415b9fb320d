#pragma once

#include <cstdint>
#include <memory>
#include <vector>

#include "absl/base/thread_annotations.h"
#include "absl/synchronization/mutex.h"
#include "absl/types/span.h"
#include "expert-service/expert_backend.h"
#include "expert-service/expert_selection.h"
#include "gatefold/model/model_config.h"

namespace gatefold {

// The experts a shard holds, as its backend keeps them. An expert is there whole or not at all, and
// one that is dropped lives on until the calls that use it are done.
// Threads: safe.
class ExpertStore {
 public:
  // The backend outlives the store and what it handed out.
  ExpertStore(const ModelConfig& config, ExpertBackend* backend);

  // One that is held already stays.
  void Put(ExpertId id, std::shared_ptr<const HeldExpert> expert);
  // Returns what was held: to give its memory back takes time, and whoever computes must not wait
  // for it.
  std::vector<std::shared_ptr<const HeldExpert>> Drop(absl::Span<const ExpertId> experts);

  // Null if it is not held.
  std::shared_ptr<const HeldExpert> Find(ExpertId id) const;

  std::vector<ExpertId> Held() const;  // ascending
  uint64_t loaded_bytes() const;
  const ModelConfig& config() const { return config_; }
  ExpertBackend* backend() const { return backend_; }

 private:
  size_t Index(ExpertId id) const {
    return static_cast<size_t>(id.layer) * config().experts_per_layer() + id.expert;
  }

  const ModelConfig config_;
  ExpertBackend* const backend_;
  mutable absl::Mutex mu_;
  // [layer, expert]; null where it is not held.
  std::vector<std::shared_ptr<const HeldExpert>> experts_ ABSL_GUARDED_BY(mu_);
  uint64_t loaded_bytes_ ABSL_GUARDED_BY(mu_) = 0;
};

}  // namespace gatefold
