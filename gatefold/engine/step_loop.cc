#include "gatefold/engine/step_loop.h"

#include <utility>

#include "gatefold/base/status_macros.h"

namespace gatefold {

const char* StepPhaseName(StepPhase phase) {
  switch (phase) {
    case StepPhase::kAttention:
      return "attention";
    case StepPhase::kGate:
      return "gate";
    case StepPhase::kExperts:
      return "experts";
    case StepPhase::kFold:
      return "fold";
    case StepPhase::kSample:
      return "sample";
  }
  return "unknown";
}

StepLoop::StepLoop(const ModelConfig& config, AttentionClient* attention, ExpertClient* experts,
                   std::unique_ptr<StepRows> rows)
    : config_(config), attention_(attention), experts_(experts), rows_(std::move(rows)) {}

absl::StatusOr<StepResult> StepLoop::Run(const Step& step) {
  StepResult result;
  result.n_rows = step.n_rows();
  GF_RETURN_IF_ERROR(rows_->Begin(step.n_rows()));
  rows_->Enter(StepPhase::kAttention);
  GF_RETURN_IF_ERROR(attention_->EmbedAndAttend(step, rows_->x()));
  GF_RETURN_IF_ERROR(rows_->RoundX());
  for (int layer = 0; layer < config_.n_layers; ++layer) {
    GF_RETURN_IF_ERROR(FeedForward(step, layer, &result));
    if (layer + 1 == config_.n_layers) break;
    rows_->Enter(StepPhase::kAttention);
    GF_RETURN_IF_ERROR(rows_->RoundX());
    GF_RETURN_IF_ERROR(attention_->Attend(step, layer + 1, rows_->x()));
    GF_RETURN_IF_ERROR(rows_->RoundX());
  }
  GF_RETURN_IF_ERROR(Sample(step, &result));
  GF_RETURN_IF_ERROR(rows_->End(&result));
  return result;
}

// x += fold(routes, dispatch(norm(x), routes))
absl::Status StepLoop::FeedForward(const Step& step, int layer, StepResult* result) {
  rows_->Enter(StepPhase::kGate);
  GF_RETURN_IF_ERROR(rows_->NormAndGate(layer));
  rows_->Enter(StepPhase::kExperts);
  GF_RETURN_IF_ERROR(experts_->Run(step, layer, rows_->h(), rows_->routes(), rows_->answers(),
                                   rows_->served_by()));
  rows_->Enter(StepPhase::kFold);
  GF_RETURN_IF_ERROR(rows_->Fold(result));
  if (!step.want_trace || !config_.sparse()) return absl::OkStatus();
  return rows_->Record(layer, result);
}

absl::Status StepLoop::Sample(const Step& step, StepResult* result) {
  if (step.samples.empty()) return absl::OkStatus();
  rows_->Enter(StepPhase::kSample);
  GF_ASSIGN_OR_RETURN(const float* x, rows_->RowsOf(step.samples));
  GF_ASSIGN_OR_RETURN(result->sampled, attention_->Sample(step, x));
  return absl::OkStatus();
}

}  // namespace gatefold
