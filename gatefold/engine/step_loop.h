#pragma once

#include <memory>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "gatefold/engine/attention_client.h"
#include "gatefold/engine/expert_client.h"
#include "gatefold/engine/step.h"
#include "gatefold/engine/step_result.h"
#include "gatefold/engine/step_rows.h"
#include "gatefold/model/model_config.h"

namespace gatefold {

// Walks one lane's steps through the layers. Threads: one at a time.
class StepLoop {
 public:
  // The clients, which outlive the loop, lead to where the rows are. Rows are rounded here to what
  // they have between services, in every deployment, so that the deployment never shows in the
  // numbers.
  StepLoop(const ModelConfig& config, AttentionClient* attention, ExpertClient* experts,
           std::unique_ptr<StepRows> rows);

  // Errors: those of the two clients and of the rows. A failed step may be run again: attention
  // writes the same keys and values at the same positions.
  absl::StatusOr<StepResult> Run(const Step& step);

 private:
  absl::Status FeedForward(const Step& step, int layer, StepResult* result);
  absl::Status Sample(const Step& step, StepResult* result);

  const ModelConfig config_;
  AttentionClient* const attention_;
  ExpertClient* const experts_;
  const std::unique_ptr<StepRows> rows_;
};

}  // namespace gatefold
