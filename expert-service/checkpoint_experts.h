#pragma once

#include "absl/status/status.h"
#include "absl/types/span.h"
#include "expert-service/expert_source.h"
#include "expert-service/expert_store.h"
#include "gatefold/checkpoint/load_progress.h"
#include "gatefold/model/model_weights.h"

namespace gatefold {

// Copies experts out of the checkpoint, dropping the mapped pages behind it.
class CheckpointExperts final : public ExpertSource {
 public:
  // Weights and backend outlive it.
  CheckpointExperts(const ModelWeights* weights, ExpertBackend* backend)
      : weights_(weights), backend_(backend) {}

  absl::StatusOr<LoadedExpert> Get(ExpertId id, ThreadPool* threads) override;

  // Puts experts that are not held into the store, one after another, each with all threads; reads
  // the next one ahead. Stops at the first error; what was loaded before is held. `progress` may be
  // null.
  absl::Status Fill(absl::Span<const ExpertId> experts, ThreadPool* threads, LoadProgress* progress,
                    ExpertStore* store);

 private:
  const ModelWeights* const weights_;
  ExpertBackend* const backend_;
};

}  // namespace gatefold
