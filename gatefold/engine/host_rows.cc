#include <algorithm>
#include <cstring>
#include <numeric>
#include <tuple>
#include <utility>
#include <vector>

#include "absl/time/clock.h"
#include "gatefold/engine/layer_trace.h"
#include "gatefold/engine/step_rows.h"
#include "gatefold/kernels/gate.h"
#include "gatefold/kernels/matmul.h"
#include "gatefold/kernels/rows.h"
#include "gatefold/tensor/buffer.h"

namespace gatefold {
namespace {

class HostRows final : public StepRows {
 public:
  HostRows(const RouterModel* model, ThreadPool* pool, DType wire_dtype)
      : model_(model), config_(model->config()), pool_(pool), wire_dtype_(wire_dtype) {}

  absl::Status Begin(int n_rows) override;
  void Enter(StepPhase phase) override;
  float* x() override { return x_.as<float>(); }
  const float* h() override { return h_.as<float>(); }
  float* answers() override { return answers_.as<float>(); }
  const Routes& routes() const override { return routes_; }
  absl::Status RoundX() override {
    RoundToWire(x(), Floats());
    return absl::OkStatus();
  }
  absl::Status NormAndGate(int layer) override;
  absl::Status Fold(StepResult* result) override;
  absl::Status Record(int layer, StepResult* result) override;
  absl::StatusOr<const float*> RowsOf(absl::Span<const SampleRequest> samples) override;
  absl::Status End(StepResult* result) override;

 private:
  size_t Floats() const { return static_cast<size_t>(routes_.n_rows) * config_.d_model; }
  void Reserve(int n_rows);
  void Gate(int layer);
  void SortByExpert();
  void Renormalise(StepResult* result);
  void RoundToWire(float* values, size_t n) const;

  const RouterModel* const model_;
  const ModelConfig& config_;
  ThreadPool* const pool_;
  const DType wire_dtype_;

  int capacity_rows_ = 0;
  Buffer x_, h_, answers_;
  Buffer logits_;  // [rows, n_experts]
  std::vector<int32_t> experts_;
  std::vector<float> weights_;
  Routes routes_;  // of the two

  StepPhase phase_ = StepPhase::kAttention;
  absl::Time entered_;
  absl::Duration phase_time_[kStepPhases];
};

absl::Status HostRows::Begin(int n_rows) {
  Reserve(n_rows);
  const size_t n_routes = static_cast<size_t>(n_rows) * config_.experts_per_row();
  experts_.resize(n_routes);
  weights_.resize(n_routes);
  routes_ = {n_rows, config_.experts_per_row(), experts_, weights_};
  std::fill(std::begin(phase_time_), std::end(phase_time_), absl::ZeroDuration());
  phase_ = StepPhase::kAttention;
  entered_ = absl::Now();
  return absl::OkStatus();
}

void HostRows::Reserve(int n_rows) {
  if (n_rows <= capacity_rows_) return;
  const size_t row_bytes = static_cast<size_t>(config_.d_model) * sizeof(float);
  const size_t k = config_.experts_per_row();
  x_ = Buffer(n_rows * row_bytes);
  h_ = Buffer(n_rows * row_bytes);
  logits_ = Buffer(static_cast<size_t>(n_rows) * config_.experts_per_layer() * sizeof(float));
  answers_ = Buffer(n_rows * k * row_bytes);
  served_by_.resize(n_rows * k);
  capacity_rows_ = n_rows;
}

void HostRows::Enter(StepPhase phase) {
  const absl::Time now = absl::Now();
  phase_time_[static_cast<int>(phase_)] += now - entered_;
  phase_ = phase;
  entered_ = now;
}

absl::Status HostRows::NormAndGate(int layer) {
  kernels::RmsNorm(x(), model_->norm(layer), config_.norm_eps, h_.as<float>(), routes_.n_rows,
                   config_.d_model, pool_);
  Gate(layer);
  RoundToWire(h_.as<float>(), Floats());
  return absl::OkStatus();
}

// The one line between the two schools: k of N experts by the gate, or all N slices.
void HostRows::Gate(int layer) {
  const int k = routes_.top_k;
  if (!config_.sparse()) {
    for (int row = 0; row < routes_.n_rows; ++row) {
      std::iota(experts_.begin() + row * k, experts_.begin() + (row + 1) * k, 0);
    }
    std::fill(weights_.begin(), weights_.end(), 1.0f);
    return;
  }
  kernels::MatMul(model_->gate(layer), h(), logits_.as<float>(), routes_.n_rows, pool_);
  kernels::GateTopK(logits_.as<float>(), routes_.n_rows, config_.n_experts, k, experts_.data(),
                    weights_.data());
  SortByExpert();
}

// The fold adds in ascending expert id, so routes are kept in that order.
void HostRows::SortByExpert() {
  const int k = routes_.top_k;
  std::vector<std::pair<int32_t, float>> pairs(k);
  for (int row = 0; row < routes_.n_rows; ++row) {
    int32_t* experts = &experts_[static_cast<size_t>(row) * k];
    float* weights = &weights_[static_cast<size_t>(row) * k];
    for (int i = 0; i < k; ++i) pairs[i] = {experts[i], weights[i]};
    std::sort(pairs.begin(), pairs.end());
    for (int i = 0; i < k; ++i) std::tie(experts[i], weights[i]) = pairs[i];
  }
}

absl::Status HostRows::Fold(StepResult* result) {
  Renormalise(result);
  RoundToWire(answers(), Floats() * routes_.top_k);
  kernels::Fold(answers(), weights_.data(), x(), routes_.n_rows, routes_.top_k, config_.d_model,
                pool_);
  return absl::OkStatus();
}

// A row that goes on without one of its experts: the weights of those that answered are scaled to
// the sum that all had.
void HostRows::Renormalise(StepResult* result) {
  const size_t k = routes_.top_k;
  const auto end = served_by_.begin() + static_cast<ptrdiff_t>(experts_.size());
  for (auto it = std::find(served_by_.begin(), end, kNoShard); it != end;) {
    const size_t row = (it - served_by_.begin()) / k;
    float* const weights = &weights_[row * k];
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

absl::Status HostRows::Record(int layer, StepResult* result) {
  result->trace.push_back(TraceOf(layer, routes_, served_by_));
  return absl::OkStatus();
}

absl::StatusOr<const float*> HostRows::RowsOf(absl::Span<const SampleRequest> samples) {
  const int d_model = config_.d_model;
  float* const rows = h_.as<float>();  // free by now, and large enough
  for (size_t i = 0; i < samples.size(); ++i) {
    std::memcpy(rows + i * d_model, x() + static_cast<size_t>(samples[i].row) * d_model,
                d_model * sizeof(float));
  }
  RoundToWire(rows, samples.size() * d_model);
  return rows;
}

absl::Status HostRows::End(StepResult* result) {
  Enter(phase_);
  std::copy(std::begin(phase_time_), std::end(phase_time_), std::begin(result->phase_time));
  return absl::OkStatus();
}

void HostRows::RoundToWire(float* values, size_t n) const {
  if (wire_dtype_ == DType::kBF16) kernels::RoundToBF16(values, n, pool_);
}

}  // namespace

std::unique_ptr<StepRows> MakeHostRows(const RouterModel* model, ThreadPool* pool,
                                       DType wire_dtype) {
  return std::make_unique<HostRows>(model, pool, wire_dtype);
}

}  // namespace gatefold
