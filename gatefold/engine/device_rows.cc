#include "gatefold/engine/device_rows.h"

#include <cuda_runtime.h>

#include <algorithm>
#include <utility>
#include <vector>

#include "absl/strings/str_cat.h"
#include "absl/time/clock.h"
#include "gatefold/base/status_macros.h"
#include "gatefold/cuda/device_memory.h"
#include "gatefold/cuda/router_rows.h"
#include "gatefold/cuda/rows.h"
#include "gatefold/device/cuda_status.h"
#include "gatefold/device/phase_clock.h"
#include "gatefold/device/row_transfer.h"
#include "gatefold/engine/device_trace.h"
#include "gatefold/kernels/to_floats.h"

namespace gatefold {
namespace {

#define GF_RETURN_IF_CALL_FAILED(expression) \
  GF_RETURN_IF_ERROR(CallStatus(CudaStatus((expression), #expression)))

// A router's weights as float32: by layer the norm [d_model], then the gate [n_experts, d_model].
class RouterWeights {
 public:
  explicit RouterWeights(const ModelConfig& config)
      : config_(config),
        layer_floats_(static_cast<size_t>(config.d_model) *
                      (1 + (config.sparse() ? config.n_experts : 0))) {}

  absl::Status Load(const RouterModel& model);
  const ModelConfig& config() const { return config_; }
  const float* norm(int layer) const {
    return reinterpret_cast<const float*>(memory_.get()) + layer * layer_floats_;
  }
  const float* gate(int layer) const { return norm(layer) + config_.d_model; }

 private:
  const ModelConfig config_;
  const size_t layer_floats_;
  cuda::DeviceMemory memory_;
};

absl::Status RouterWeights::Load(const RouterModel& model) {
  const int64_t d_model = config_.d_model;
  std::vector<float> floats;
  for (int layer = 0; layer < config_.n_layers; ++layer) {
    floats.insert(floats.end(), model.norm(layer), model.norm(layer) + d_model);
    if (!config_.sparse()) continue;
    const PackedMatrix& gate = model.gate(layer);
    std::vector<char> row(d_model * DTypeBytes(gate.dtype()));
    for (int expert = 0; expert < config_.n_experts; ++expert) {
      gate.CopyRow(expert, row.data());
      floats.resize(floats.size() + d_model);
      ReadFloats(gate.dtype(), row.data(), d_model, floats.data() + floats.size() - d_model);
    }
  }
  const size_t bytes = floats.size() * sizeof(float);
  GF_RETURN_IF_CUDA_ERROR(memory_.Reserve(bytes));
  GF_RETURN_IF_CUDA_ERROR(cudaMemcpy(memory_.get(), floats.data(), bytes, cudaMemcpyHostToDevice));
  GF_RETURN_IF_CUDA_ERROR(cudaDeviceSynchronize());  // the stream does not wait for this copy
  return absl::OkStatus();
}

class DeviceRows final : public StepRows {
 public:
  DeviceRows(const RouterWeights* weights, DType wire_dtype, CudaStream* stream)
      : weights_(weights),
        config_(weights->config()),
        rounds_(wire_dtype == DType::kBF16),
        stream_(stream),
        clock_(kStepPhases) {}
  ~DeviceRows() override {
    cudaStreamSynchronize(stream_->get());  // a step that failed half-way left work under way
  }

  // Room for so many rows, before the first step: what is found out then is found out in time.
  absl::Status Reserve(int n_rows);
  absl::Status Begin(int n_rows) override;
  void Enter(StepPhase phase) override { clock_.Enter(static_cast<int>(phase), stream_->get()); }
  float* x() override { return x_; }
  const float* h() override { return h_; }
  float* answers() override { return answers_; }
  const Routes& routes() const override { return routes_; }
  absl::Status RoundX() override { return Round(x_, routes_.n_rows); }
  absl::Status NormAndGate(int layer) override;
  absl::Status Fold(StepResult* result) override;
  absl::Status Record(int layer, StepResult* result) override;
  absl::StatusOr<const float*> RowsOf(absl::Span<const SampleRequest> samples) override;
  absl::Status End(StepResult* result) override;

 private:
  absl::Status Round(float* rows, int64_t n_rows);

  const RouterWeights* const weights_;
  const ModelConfig& config_;
  const bool rounds_;
  CudaStream* const stream_;

  int capacity_rows_ = 0;
  cuda::DeviceMemory memory_;
  float *x_ = nullptr, *h_ = nullptr, *answers_ = nullptr;
  float* logits_ = nullptr;  // [rows, n_experts]
  int32_t* experts_ = nullptr;
  float* route_weights_ = nullptr;
  Routes routes_;  // of the two
  Transfer<int32_t> row_numbers_;
  DeviceTrace trace_;
  PhaseClock clock_;
  absl::Time began_;
};

absl::Status DeviceRows::Begin(int n_rows) {
  GF_RETURN_IF_ERROR(CallStatus(Reserve(n_rows)));
  const int k = config_.experts_per_row();
  const size_t n_routes = static_cast<size_t>(n_rows) * k;
  routes_ = {n_rows, k, absl::MakeConstSpan(experts_, n_routes),
             absl::MakeConstSpan(route_weights_, n_routes)};
  served_by_.resize(n_routes);
  trace_.Begin(static_cast<size_t>(capacity_rows_) * k * config_.n_layers);
  began_ = absl::Now();
  clock_.Begin(n_rows);
  return absl::OkStatus();
}

absl::Status DeviceRows::Reserve(int n_rows) {
  if (n_rows <= capacity_rows_) return absl::OkStatus();
  capacity_rows_ = 0;
  const size_t rows = (static_cast<size_t>(n_rows) + 3) / 4 * 4;  // so that all pieces are aligned
  const size_t width = config_.d_model, k = config_.experts_per_row();
  const size_t n_logits = config_.sparse() ? rows * config_.n_experts : 0;
  const size_t n_floats = rows * width * (2 + k) + n_logits + 2 * rows * k;
  GF_RETURN_IF_CUDA_ERROR(memory_.Reserve(n_floats * sizeof(float)));
  float* at = reinterpret_cast<float*>(memory_.get());
  const auto take = [&at](size_t n) { return std::exchange(at, at + n); };
  x_ = take(rows * width);
  h_ = take(rows * width);
  answers_ = take(rows * width * k);
  logits_ = take(n_logits);
  route_weights_ = take(rows * k);
  experts_ = reinterpret_cast<int32_t*>(at);
  capacity_rows_ = static_cast<int>(rows);
  return absl::OkStatus();
}

absl::Status DeviceRows::Round(float* rows, int64_t n_rows) {
  if (!rounds_) return absl::OkStatus();
  GF_RETURN_IF_CALL_FAILED(cuda::RoundRows(rows, n_rows, config_.d_model, stream_->get()));
  return absl::OkStatus();
}

absl::Status DeviceRows::NormAndGate(int layer) {
  const int n = routes_.n_rows;
  const cudaStream_t stream = stream_->get();
  GF_RETURN_IF_CALL_FAILED(cuda::RouterNorm(x_, weights_->norm(layer),
                                            static_cast<float>(config_.norm_eps), h_, n,
                                            config_.d_model, stream));
  if (config_.sparse()) {
    GF_RETURN_IF_CALL_FAILED(cuda::GateLogits(h_, weights_->gate(layer), logits_, n,
                                              config_.d_model, config_.n_experts, stream));
    GF_RETURN_IF_CALL_FAILED(cuda::GateTopK(logits_, n, config_.n_experts, routes_.top_k, experts_,
                                            route_weights_, stream));
  } else {
    GF_RETURN_IF_CALL_FAILED(cuda::RouteToAll(n, routes_.top_k, experts_, route_weights_, stream));
  }
  return Round(h_, n);
}

absl::Status DeviceRows::Fold(StepResult* /*result*/) {
  GF_RETURN_IF_CALL_FAILED(cuda::FoldAnswers(answers_, route_weights_, rounds_, x_, routes_.n_rows,
                                             routes_.top_k, config_.d_model, stream_->get()));
  return absl::OkStatus();
}

absl::Status DeviceRows::Record(int layer, StepResult* /*result*/) {
  return CallStatus(trace_.Record(layer, routes_, stream_->get()));
}

absl::StatusOr<const float*> DeviceRows::RowsOf(absl::Span<const SampleRequest> samples) {
  std::vector<int32_t> rows;
  for (const SampleRequest& sample : samples) rows.push_back(sample.row);
  GF_RETURN_IF_ERROR(CallStatus(row_numbers_.Send(rows.data(), rows.size(), stream_->get())));
  const int64_t n = static_cast<int64_t>(rows.size());
  // h is free by now, and large enough.
  GF_RETURN_IF_CALL_FAILED(
      cuda::GatherRows(x_, row_numbers_.device(), h_, n, config_.d_model, stream_->get()));
  GF_RETURN_IF_ERROR(Round(h_, n));
  return h_;
}

absl::Status DeviceRows::End(StepResult* result) {
  clock_.Stop(stream_->get());
  GF_RETURN_IF_CALL_FAILED(clock_.Await(stream_->get()));
  trace_.AppendTo(served_by_, &result->trace);
  const absl::Duration total = absl::Now() - began_;
  for (int phase = 0; phase < kStepPhases; ++phase) {
    result->phase_time[phase] = total * clock_.share(phase);
  }
  return absl::OkStatus();
}

class CudaRouter final : public DeviceRouter {
 public:
  CudaRouter(const ModelConfig& config, DType wire_dtype, CudaStream* stream)
      : weights_(config), wire_dtype_(wire_dtype), stream_(stream) {}
  absl::Status Load(const RouterModel& model) { return weights_.Load(model); }
  absl::StatusOr<std::unique_ptr<StepRows>> MakeRows(int n_rows) const override {
    auto rows = std::make_unique<DeviceRows>(&weights_, wire_dtype_, stream_);
    GF_RETURN_IF_ERROR(rows->Reserve(n_rows));
    return rows;
  }

 private:
  RouterWeights weights_;
  const DType wire_dtype_;
  CudaStream* const stream_;
};

}  // namespace

absl::StatusOr<std::unique_ptr<DeviceRouter>> MakeDeviceRouter(const RouterModel& model,
                                                               DType wire_dtype,
                                                               CudaStream* stream) {
  const ModelConfig& config = model.config();
  if (config.d_model > cuda::kMaxRouterWidth || config.d_model % 8 != 0 ||
      config.experts_per_layer() > cuda::kMaxRouterExperts ||
      (config.sparse() && config.experts_per_row() > cuda::kMaxRouterTopK)) {
    return absl::FailedPreconditionError(
        absl::StrCat("a gate on the device has rows of a multiple of 8, at most ",
                     cuda::kMaxRouterWidth, ", at most ", cuda::kMaxRouterExperts, " experts and ",
                     cuda::kMaxRouterTopK, " of them per row; this model has ", config.d_model,
                     ", ", config.experts_per_layer(), " and ", config.experts_per_row()));
  }
  auto router = std::make_unique<CudaRouter>(config, wire_dtype, stream);
  GF_RETURN_IF_ERROR(router->Load(model));
  return router;
}

}  // namespace gatefold
