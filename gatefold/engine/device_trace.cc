#include "gatefold/engine/device_trace.h"

#include "gatefold/base/status_macros.h"
#include "gatefold/device/cuda_status.h"
#include "gatefold/engine/layer_trace.h"

namespace gatefold {

DeviceTrace::~DeviceTrace() {
  cudaFreeHost(memory_);
  if (copied_ != nullptr) cudaEventDestroy(copied_);
}

void DeviceTrace::Begin(size_t max_routes) {
  max_routes_ = max_routes;
  recorded_.clear();
}

absl::Status DeviceTrace::Reserve() {
  if (copied_ == nullptr) {
    GF_RETURN_IF_CUDA_ERROR(cudaEventCreateWithFlags(&copied_, cudaEventDisableTiming));
  }
  // A step that failed half-way left copies under way.
  GF_RETURN_IF_CUDA_ERROR(cudaEventSynchronize(copied_));
  const size_t bytes = max_routes_ * (sizeof(int32_t) + sizeof(float));
  if (bytes <= bytes_) return absl::OkStatus();
  cudaFreeHost(memory_);
  memory_ = nullptr;
  bytes_ = 0;
  GF_RETURN_IF_CUDA_ERROR(cudaMallocHost(&memory_, bytes));
  bytes_ = bytes;
  return absl::OkStatus();
}

absl::Status DeviceTrace::Record(int layer, const Routes& routes, cudaStream_t stream) {
  if (recorded_.empty()) GF_RETURN_IF_ERROR(Reserve());
  const size_t n = routes.experts.size();
  const size_t bytes = n * sizeof(int32_t);  // of a float as well
  char* const experts = memory_ + recorded_.size() * 2 * bytes;
  char* const weights = experts + bytes;
  GF_RETURN_IF_CUDA_ERROR(
      cudaMemcpyAsync(experts, routes.experts.data(), bytes, cudaMemcpyDeviceToHost, stream));
  GF_RETURN_IF_CUDA_ERROR(
      cudaMemcpyAsync(weights, routes.weights.data(), bytes, cudaMemcpyDeviceToHost, stream));
  GF_RETURN_IF_CUDA_ERROR(cudaEventRecord(copied_, stream));
  recorded_.push_back({layer,
                       {routes.n_rows, routes.top_k,
                        absl::MakeConstSpan(reinterpret_cast<const int32_t*>(experts), n),
                        absl::MakeConstSpan(reinterpret_cast<const float*>(weights), n)}});
  return absl::OkStatus();
}

void DeviceTrace::AppendTo(absl::Span<const uint8_t> served_by,
                           std::vector<LayerTrace>* trace) const {
  for (const Recorded& each : recorded_) {
    trace->push_back(TraceOf(each.layer, each.routes, served_by));
  }
}

}  // namespace gatefold
