#pragma once

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
      : runner_(runner), sequences_(runner->kv(), n_open) {}

  absl::Status Open(const SequenceSpec& spec) override { return sequences_.Open(spec); }
  void Close(SequenceId sequence) override { sequences_.Close(sequence); }
  absl::Status EmbedAndAttend(const Step& step, float* x) override {
    return runner_->EmbedAndAttend(&sequences_, step.spans, step.token_ids, x);
  }
  absl::Status Attend(const Step& step, int layer, float* x) override {
    return runner_->Attend(&sequences_, layer, step.spans, x);
  }
  absl::StatusOr<std::vector<Sampled>> Sample(const Step& step, const float* x) override {
    return runner_->Sample(&sequences_, step.samples, x);
  }

 private:
  AttentionRunner* const runner_;
  SequenceTable sequences_;
};

}  // namespace gatefold
