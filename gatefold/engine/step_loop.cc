#include "gatefold/engine/step_loop.h"

#include <algorithm>
#include <cstring>
#include <numeric>
#include <utility>

#include "absl/time/clock.h"
#include "gatefold/base/status_macros.h"
#include "gatefold/kernels/gate.h"
#include "gatefold/kernels/matmul.h"
#include "gatefold/kernels/rows.h"

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

// Adds the time until its end to one phase.
class StepLoop::PhaseTimer {
 public:
  PhaseTimer(StepResult* result, StepPhase phase)
      : total_(&result->phase_time[static_cast<int>(phase)]), start_(absl::Now()) {}
  ~PhaseTimer() { *total_ += absl::Now() - start_; }

 private:
  absl::Duration* const total_;
  const absl::Time start_;
};

StepLoop::StepLoop(const RouterModel* model, AttentionClient* attention, ExpertClient* experts,
                   ThreadPool* pool, DType wire_dtype)
    : model_(model),
      attention_(attention),
      experts_(experts),
      pool_(pool),
      wire_dtype_(wire_dtype) {}

absl::StatusOr<StepResult> StepLoop::Run(const Step& step) {
  const ModelConfig& config = model_->config();
  const size_t n = static_cast<size_t>(step.n_rows()) * config.d_model;
  Reserve(step.n_rows());
  StepResult result;
  result.n_rows = step.n_rows();
  float* x = x_.as<float>();
  {
    PhaseTimer timer(&result, StepPhase::kAttention);
    GF_RETURN_IF_ERROR(attention_->EmbedAndAttend(step, x));
  }
  RoundToWire(x, n);
  for (int layer = 0; layer < config.n_layers; ++layer) {
    GF_RETURN_IF_ERROR(FeedForward(step, layer, &result));
    if (layer + 1 == config.n_layers) break;
    PhaseTimer timer(&result, StepPhase::kAttention);
    RoundToWire(x, n);
    GF_RETURN_IF_ERROR(attention_->Attend(step, layer + 1, x));
    RoundToWire(x, n);
  }
  GF_RETURN_IF_ERROR(Sample(step, &result));
  return result;
}

// x += fold(routes, dispatch(norm(x), routes))
absl::Status StepLoop::FeedForward(const Step& step, int layer, StepResult* result) {
  const ModelConfig& config = model_->config();
  const int n_rows = step.n_rows();
  const int k = config.experts_per_row();
  {
    PhaseTimer timer(result, StepPhase::kGate);
    kernels::RmsNorm(x_.as<float>(), model_->norm(layer), config.norm_eps, h_.as<float>(), n_rows,
                     config.d_model, pool_);
    Gate(layer, n_rows);
    RoundToWire(h_.as<float>(), static_cast<size_t>(n_rows) * config.d_model);
  }
  {
    PhaseTimer timer(result, StepPhase::kExperts);
    GF_RETURN_IF_ERROR(experts_->Run(step, layer, h_.as<float>(), routes_, answers_.as<float>(),
                                     served_by_.data()));
  }
  PhaseTimer timer(result, StepPhase::kFold);
  Renormalise(result);
  RoundToWire(answers_.as<float>(), static_cast<size_t>(n_rows) * k * config.d_model);
  kernels::Fold(answers_.as<float>(), routes_.weights.data(), x_.as<float>(), n_rows, k,
                config.d_model, pool_);
  if (step.want_trace && config.sparse()) Record(layer, result);
  return absl::OkStatus();
}

// A row that goes on without one of its experts: the weights of those that answered are scaled to
// the sum that all had.
void StepLoop::Renormalise(StepResult* result) {
  const size_t k = routes_.top_k;
  const auto end = served_by_.begin() + static_cast<ptrdiff_t>(routes_.experts.size());
  for (auto it = std::find(served_by_.begin(), end, kNoShard); it != end;) {
    const size_t row = (it - served_by_.begin()) / k;
    float* const weights = &routes_.weights[row * k];
    float all = 0, present = 0;
    for (size_t i = 0; i < k; ++i) {
      all += weights[i];
      if (served_by_[row * k + i] == kNoShard) weights[i] = 0;
      present += weights[i];
    }
    for (size_t i = 0; i < k && present > 0; ++i) weights[i] *= all / present;
    result->degraded.resize(routes_.n_rows);
    result->degraded[row] = true;
    it = std::find(served_by_.begin() + static_cast<ptrdiff_t>((row + 1) * k), end, kNoShard);
  }
}

// The one line between the two schools: k of N experts by the gate, or all N slices.
void StepLoop::Gate(int layer, int n_rows) {
  const ModelConfig& config = model_->config();
  const int k = config.experts_per_row();
  routes_.Resize(n_rows, k);
  if (!config.sparse()) {
    for (int row = 0; row < n_rows; ++row) {
      std::iota(routes_.experts.begin() + row * k, routes_.experts.begin() + (row + 1) * k, 0);
    }
    std::fill(routes_.weights.begin(), routes_.weights.end(), 1.0f);
    return;
  }
  kernels::MatMul(model_->gate(layer), h_.as<float>(), logits_.as<float>(), n_rows, pool_);
  kernels::GateTopK(logits_.as<float>(), n_rows, config.n_experts, k, routes_.experts.data(),
                    routes_.weights.data());
  SortByExpert();
}

// The fold adds in ascending expert id, so routes are kept in that order.
void StepLoop::SortByExpert() {
  const int k = routes_.top_k;
  std::vector<std::pair<int32_t, float>> pairs(k);
  for (int row = 0; row < routes_.n_rows; ++row) {
    int32_t* experts = &routes_.experts[static_cast<size_t>(row) * k];
    float* weights = &routes_.weights[static_cast<size_t>(row) * k];
    for (int i = 0; i < k; ++i) pairs[i] = {experts[i], weights[i]};
    std::sort(pairs.begin(), pairs.end());
    for (int i = 0; i < k; ++i) std::tie(experts[i], weights[i]) = pairs[i];
  }
}

absl::Status StepLoop::Sample(const Step& step, StepResult* result) {
  if (step.samples.empty()) return absl::OkStatus();
  PhaseTimer timer(result, StepPhase::kSample);
  const int d_model = model_->config().d_model;
  float* rows = h_.as<float>();  // free by now, and large enough
  for (size_t i = 0; i < step.samples.size(); ++i) {
    std::memcpy(rows + i * d_model,
                x_.as<float>() + static_cast<size_t>(step.samples[i].row) * d_model,
                d_model * sizeof(float));
  }
  RoundToWire(rows, step.samples.size() * d_model);
  GF_ASSIGN_OR_RETURN(result->sampled, attention_->Sample(step, rows));
  return absl::OkStatus();
}

void StepLoop::RoundToWire(float* values, size_t n) const {
  if (wire_dtype_ == DType::kBF16) kernels::RoundToBF16(values, n);
}

void StepLoop::Reserve(int n_rows) {
  if (n_rows <= capacity_rows_) return;
  const ModelConfig& config = model_->config();
  const size_t row_bytes = static_cast<size_t>(config.d_model) * sizeof(float);
  const size_t k = config.experts_per_row();
  x_ = Buffer(n_rows * row_bytes);
  h_ = Buffer(n_rows * row_bytes);
  logits_ = Buffer(static_cast<size_t>(n_rows) * config.experts_per_layer() * sizeof(float));
  answers_ = Buffer(n_rows * k * row_bytes);
  served_by_.resize(n_rows * k);
  capacity_rows_ = n_rows;
}

void StepLoop::Record(int layer, StepResult* result) const {
  const size_t k = routes_.top_k;
  LayerTrace trace;
  trace.layer = layer;
  std::vector<size_t> order(k);
  for (size_t first = 0; first < routes_.experts.size(); first += k) {
    std::iota(order.begin(), order.end(), first);
    std::stable_sort(order.begin(), order.end(), [this](size_t a, size_t b) {
      return routes_.weights[a] > routes_.weights[b];
    });
    for (size_t i : order) {
      trace.experts.push_back(static_cast<uint16_t>(routes_.experts[i]));
      trace.weights.push_back(routes_.weights[i]);
      trace.served_by.push_back(served_by_[i]);
    }
  }
  result->trace.push_back(std::move(trace));
}

}  // namespace gatefold
