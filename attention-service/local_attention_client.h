#pragma once

#include <utility>
#include <vector>

#include "attention-service/attention_runner.h"
#include "attention-service/sequence_table.h"
#include "gatefold/engine/attention_client.h"

namespace gatefold {

// Attention in this process, as the step loop sees it. One per lane.
class LocalAttentionClient final : public AttentionClient {
 public:
  // The runner outlives the client; `n_open` counts open sequences and may be null.
  explicit LocalAttentionClient(AttentionRunner* runner, std::atomic<int>* n_open = nullptr)
      : runner_(runner), sequences_(runner->cache(), n_open) {}

  absl::StatusOr<int> Open(const SequenceSpec& spec) override {
    // All sequences of a process are computed alike.
    constexpr uint32_t kCacheDomain = 1;
    return sequences_.Open(spec, kCacheDomain);
  }
  void Close(SequenceId sequence) override { sequences_.Close(sequence); }
  absl::Status EmbedAndAttend(const Step& step, float* x) override {
    starved_.clear();
    return runner_->EmbedAndAttend(&sequences_, step.spans, step.token_ids, x, &starved_);
  }
  absl::Status Attend(const Step& step, int layer, float* x) override {
    return runner_->Attend(&sequences_, layer, step.spans, x);
  }
  absl::StatusOr<std::vector<Sampled>> Sample(const Step& step, const float* x) override {
    return runner_->Sample(&sequences_, step.samples, x);
  }
  std::vector<Failed> TakeFailed() override {
    std::vector<Failed> failed;
    for (SequenceId id : std::exchange(starved_, {})) {
      failed.push_back({id, absl::ResourceExhaustedError("all KV blocks are in use")});
    }
    return failed;
  }

 private:
  AttentionRunner* const runner_;
  SequenceTable sequences_;
  std::vector<SequenceId> starved_;
};

}  // namespace gatefold
