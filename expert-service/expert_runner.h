#pragma once

#include <atomic>
#include <cstdint>
#include <memory>
#include <vector>

#include "absl/base/thread_annotations.h"
#include "absl/status/status.h"
#include "absl/synchronization/mutex.h"
#include "absl/types/span.h"
#include "expert-service/expert_store.h"

namespace gatefold {

// Rows of one layer that visit one expert.
struct ExpertVisit {
  int expert = 0;
  std::vector<int32_t> rows;   // of the input
  std::vector<int32_t> slots;  // of the output, one per entry of rows
};

// Computes what a batch of visits asks for, all of them in one go. Knows no gRPC.
// Threads: safe; computations take turns, since each uses the whole backend.
class ExpertRunner {
 public:
  // The store outlives the runner.
  explicit ExpertRunner(const ExpertStore* store)
      : store_(store),
        rows_(static_cast<size_t>(store->config().n_layers) * store->config().experts_per_layer()) {
  }

  // x: [n_rows, d_model]. y: [n slots, d_model], out. The caller has checked rows and slots.
  // kNotFound, naming layer and expert, if one is not held: then nothing was computed. Errors of
  // the backend.
  absl::Status Run(int layer, absl::Span<const ExpertVisit> visits, const float* x, int n_rows,
                   float* y);

  const ExpertStore& store() const { return *store_; }

  // Rows this expert has computed since the start.
  uint64_t n_rows(ExpertId id) const { return rows_[Index(id.layer, id.expert)]; }

 private:
  size_t Index(int layer, int expert) const {
    return static_cast<size_t>(layer) * store_->config().experts_per_layer() + expert;
  }

  const ExpertStore* const store_;
  std::vector<std::atomic<uint64_t>> rows_;  // [layer, expert]
  absl::Mutex compute_mu_;
};

}  // namespace gatefold
