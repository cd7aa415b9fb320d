#pragma once

#include <cstdint>
#include <memory>
#include <vector>

#include "absl/base/thread_annotations.h"
#include "absl/status/status.h"
#include "absl/synchronization/mutex.h"
#include "absl/types/span.h"
#include "expert-service/expert_backend.h"
#include "expert-service/expert_selection.h"
#include "gatefold/base/thread_pool.h"
#include "gatefold/checkpoint/load_progress.h"
#include "gatefold/model/model_weights.h"

namespace gatefold {

// The experts a shard holds, as its backend keeps them. An expert is there whole or not at all, and
// one that is dropped lives on until the calls that use it are done.
// Threads: safe.
class ExpertStore {
 public:
  // Weights and backend outlive the store and what it handed out.
  ExpertStore(const ModelWeights* weights, ExpertBackend* backend);

  // Copies the experts out of the checkpoint, dropping the mapped pages behind it; those already
  // held are skipped. `threads` may be null, `progress` too. At the backend's first error, which is
  // returned, it stops; what was loaded before is held.
  absl::Status Load(absl::Span<const ExpertId> experts, ThreadPool* threads, LoadProgress* progress);
  void Drop(absl::Span<const ExpertId> experts);

  // Null if it is not held.
  std::shared_ptr<const HeldExpert> Find(ExpertId id) const;

  std::vector<ExpertId> Held() const;  // ascending
  uint64_t loaded_bytes() const;
  const ModelConfig& config() const { return weights_->config(); }
  ExpertBackend* backend() const { return backend_; }

 private:
  size_t Index(ExpertId id) const {
    return static_cast<size_t>(id.layer) * config().experts_per_layer() + id.expert;
  }

  const ModelWeights* const weights_;
  ExpertBackend* const backend_;
  mutable absl::Mutex mu_;
  // [layer, expert]; null where it is not held.
  std::vector<std::shared_ptr<const HeldExpert>> experts_ ABSL_GUARDED_BY(mu_);
  uint64_t loaded_bytes_ ABSL_GUARDED_BY(mu_) = 0;
};

}  // namespace gatefold
