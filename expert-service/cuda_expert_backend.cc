#include <cuda_runtime.h>

#include <algorithm>
#include <cstring>
#include <utility>
#include <vector>

#include "absl/base/thread_annotations.h"
#include "absl/strings/str_cat.h"
#include "absl/synchronization/mutex.h"
#include "expert-service/expert_backend.h"
#include "gatefold/base/status_macros.h"
#include "gatefold/cuda/expert_mlp.h"
#include "gatefold/cuda/numerics_class.h"
#include "gatefold/cuda/pack_weights.h"
#include "gatefold/kernels/to_floats.h"

namespace gatefold {
namespace {

absl::Status DeviceStatus(cudaError_t error, absl::string_view what) {
  if (error == cudaSuccess) return absl::OkStatus();
  const std::string message = absl::StrCat("CUDA: ", what, ": ", cudaGetErrorString(error));
  if (error == cudaErrorMemoryAllocation) {
    cudaGetLastError();  // not a failure of the device: it goes on
    return absl::ResourceExhaustedError(message);
  }
  return absl::UnavailableError(message);
}
#define GF_RETURN_IF_CUDA_ERROR(expression) \
  GF_RETURN_IF_ERROR(DeviceStatus((expression), #expression))

// Tiles of both products, then the biases, in one piece of device memory.
struct CudaExpert final : HeldExpert {
  explicit CudaExpert(const cuda::ExpertShape& shape)
      : d_ff(shape.d_ff),
        w2_at(shape.w13().weight_bytes()),
        biases_at(shape.weight_bytes()),
        bytes(biases_at + static_cast<size_t>(2 * shape.d_ff + shape.d_model) * sizeof(float)) {}
  ~CudaExpert() override { cudaFree(memory); }
  size_t size_bytes() const override { return bytes; }

  const int64_t d_ff;
  const size_t w2_at, biases_at, bytes;
  char* memory = nullptr;
  cuda::DeviceExpert parts;
};

// Pinned host memory, and a stream to send it on.
class Staging {
 public:
  explicit Staging(size_t bytes) : bytes_(bytes) {}
  ~Staging() {
    cudaFreeHost(host_);
    cudaFree(device_);
    if (stream_ != nullptr) cudaStreamDestroy(stream_);
  }
  Staging(const Staging&) = delete;
  Staging& operator=(const Staging&) = delete;

  absl::Status Prepare() {
    if (stream_ != nullptr) return absl::OkStatus();
    GF_RETURN_IF_CUDA_ERROR(cudaMallocHost(&host_, bytes_));
    GF_RETURN_IF_CUDA_ERROR(cudaMalloc(&device_, bytes_));
    GF_RETURN_IF_CUDA_ERROR(cudaStreamCreateWithFlags(&stream_, cudaStreamNonBlocking));
    return absl::OkStatus();
  }
  char* host() { return host_; }
  char* device() { return device_; }
  size_t bytes() const { return bytes_; }
  cudaStream_t stream() const { return stream_; }

 private:
  const size_t bytes_;
  char* host_ = nullptr;
  char* device_ = nullptr;
  cudaStream_t stream_ = nullptr;
};

// Host and device memory for rows on their way, as large as the largest batch so far.
class Rows {
 public:
  ~Rows() {
    cudaFreeHost(host_);
    cudaFree(device_);
  }
  absl::Status Reserve(size_t n) {
    if (n <= n_) return absl::OkStatus();
    cudaFreeHost(host_);
    cudaFree(device_);
    host_ = device_ = nullptr;
    n_ = 0;
    const size_t bytes = (n + n / 2) * sizeof(float);
    GF_RETURN_IF_CUDA_ERROR(cudaMallocHost(&host_, bytes));
    GF_RETURN_IF_CUDA_ERROR(cudaMalloc(&device_, bytes));
    n_ = n + n / 2;
    return absl::OkStatus();
  }
  float* host() { return host_; }
  float* device() { return device_; }

 private:
  size_t n_ = 0;
  float* host_ = nullptr;
  float* device_ = nullptr;
};

class CudaExpertBackend final : public ExpertBackend {
 public:
  CudaExpertBackend(const cudaDeviceProp& device, int64_t d_model, uint64_t numerics)
      : device_(absl::StrCat(device.name, " (compute capability ", device.major, ".", device.minor, ")")),
        numerics_(numerics),
        d_model_(d_model) {}

  std::string name() const override { return "cuda"; }
  std::string device() const override { return device_; }
  uint64_t numerics_class() const override { return numerics_; }

  absl::StatusOr<std::shared_ptr<const HeldExpert>> Load(const ExpertWeightsView& view,
                                                         ThreadPool* /*threads*/) override;
  absl::Status Run(absl::Span<const HeldGroup> groups, const float* x, int n_rows, float* y) override;

 private:
  static constexpr size_t kStagingBytes = size_t{16} << 20;

  absl::Status SendMatrix(const MatrixView& matrix, const cuda::TileShape& shape, int which, char* tiles)
      ABSL_EXCLUSIVE_LOCKS_REQUIRED(load_mu_);
  // `to`, or null if there is none.
  absl::StatusOr<const float*> SendBias(const TensorView& bias, float* to)
      ABSL_EXCLUSIVE_LOCKS_REQUIRED(load_mu_);
  // Runs of visits of experts of one shape: slices of a dense layer may differ in size.
  cuda::ExpertMlp* MlpFor(int64_t d_ff);

  const std::string device_;
  const uint64_t numerics_;
  const int64_t d_model_;

  absl::Mutex load_mu_;
  Staging staging_ ABSL_GUARDED_BY(load_mu_){kStagingBytes};

  // Of Run() alone.
  Staging compute_{0};
  Rows x_, y_;
  std::vector<std::pair<int64_t, std::unique_ptr<cuda::ExpertMlp>>> mlps_;  // by d_ff
};

absl::StatusOr<std::shared_ptr<const HeldExpert>> CudaExpertBackend::Load(const ExpertWeightsView& view,
                                                                          ThreadPool* /*threads*/) {
  const cuda::ExpertShape shape{view.w2.n_rows, view.w1.n_rows};
  auto expert = std::make_shared<CudaExpert>(shape);
  absl::MutexLock lock(&load_mu_);
  GF_RETURN_IF_ERROR(staging_.Prepare());
  GF_RETURN_IF_CUDA_ERROR(cudaMalloc(&expert->memory, expert->bytes));
  char* memory = expert->memory;
  GF_RETURN_IF_CUDA_ERROR(cudaMemsetAsync(memory, 0, expert->bytes, staging_.stream()));
  GF_RETURN_IF_ERROR(SendMatrix(view.w1, shape.w13(), 0, memory));
  GF_RETURN_IF_ERROR(SendMatrix(view.w3, shape.w13(), 1, memory));
  GF_RETURN_IF_ERROR(SendMatrix(view.w2, shape.w2(), 0, memory + expert->w2_at));
  auto* biases = reinterpret_cast<float*>(memory + expert->biases_at);
  GF_ASSIGN_OR_RETURN(expert->parts.b1, SendBias(view.b1, biases));
  GF_ASSIGN_OR_RETURN(expert->parts.b3, SendBias(view.b3, biases + shape.d_ff));
  GF_ASSIGN_OR_RETURN(expert->parts.b2, SendBias(view.b2, biases + 2 * shape.d_ff));
  expert->parts.w13 = memory;
  expert->parts.w2 = memory + expert->w2_at;
  GF_RETURN_IF_CUDA_ERROR(cudaStreamSynchronize(staging_.stream()));
  return expert;
}

absl::StatusOr<const float*> CudaExpertBackend::SendBias(const TensorView& bias, float* to) {
  if (bias.data == nullptr) return nullptr;
  const Buffer values = ToFloats(bias);
  // From pageable memory: returns when it was read.
  GF_RETURN_IF_CUDA_ERROR(cudaMemcpyAsync(to, values.data(), values.size_bytes(), cudaMemcpyHostToDevice,
                                          staging_.stream()));
  return to;
}

absl::Status CudaExpertBackend::SendMatrix(const MatrixView& matrix, const cuda::TileShape& shape,
                                           int which, char* tiles) {
  const size_t row_bytes = static_cast<size_t>(matrix.n_cols) * sizeof(uint16_t);
  const int64_t most = static_cast<int64_t>(staging_.bytes() / row_bytes);
  if (most == 0) return absl::ResourceExhaustedError("CUDA: a row of weights is larger than 16 MiB");
  for (int64_t first = 0; first < matrix.n_rows; first += most) {
    const MatrixView part = matrix.Rows(first, std::min(most, matrix.n_rows - first));
    // The stream is still reading what was sent before.
    GF_RETURN_IF_CUDA_ERROR(cudaStreamSynchronize(staging_.stream()));
    for (int64_t row = 0; row < part.n_rows; ++row) {
      std::memcpy(staging_.host() + row * row_bytes,
                  static_cast<const char*>(part.data) + row * part.row_stride * sizeof(uint16_t), row_bytes);
    }
    GF_RETURN_IF_CUDA_ERROR(cudaMemcpyAsync(staging_.device(), staging_.host(), part.n_rows * row_bytes,
                                            cudaMemcpyHostToDevice, staging_.stream()));
    GF_RETURN_IF_CUDA_ERROR(cuda::PackWeights(shape, staging_.device(), first, part.n_rows, which, tiles,
                                              staging_.stream()));
  }
  return absl::OkStatus();
}

cuda::ExpertMlp* CudaExpertBackend::MlpFor(int64_t d_ff) {
  for (const auto& [size, mlp] : mlps_) {
    if (size == d_ff) return mlp.get();
  }
  mlps_.emplace_back(d_ff, std::make_unique<cuda::ExpertMlp>(cuda::ExpertShape{d_model_, d_ff}));
  return mlps_.back().second.get();
}

absl::Status CudaExpertBackend::Run(absl::Span<const HeldGroup> groups, const float* x, int n_rows,
                                    float* y) {
  size_t n_slots = 0;
  for (const HeldGroup& group : groups) n_slots += group.rows.size();
  if (n_slots == 0) return absl::OkStatus();
  const size_t n_x = static_cast<size_t>(n_rows) * d_model_, n_y = n_slots * d_model_;
  GF_RETURN_IF_ERROR(compute_.Prepare());
  GF_RETURN_IF_ERROR(x_.Reserve(n_x));
  GF_RETURN_IF_ERROR(y_.Reserve(n_y));
  std::memcpy(x_.host(), x, n_x * sizeof(float));
  GF_RETURN_IF_CUDA_ERROR(cudaMemcpyAsync(x_.device(), x_.host(), n_x * sizeof(float),
                                          cudaMemcpyHostToDevice, compute_.stream()));
  std::vector<int64_t> sizes;
  for (const HeldGroup& group : groups) {
    const int64_t d_ff = static_cast<const CudaExpert*>(group.expert)->d_ff;
    if (std::find(sizes.begin(), sizes.end(), d_ff) == sizes.end()) sizes.push_back(d_ff);
  }
  for (int64_t d_ff : sizes) {
    std::vector<cuda::ExpertVisits> visits;
    for (const HeldGroup& group : groups) {
      const auto* expert = static_cast<const CudaExpert*>(group.expert);
      if (expert->d_ff != d_ff || group.rows.empty()) continue;
      visits.push_back({&expert->parts, group.rows.data(), group.slots.data(),
                        static_cast<int>(group.rows.size())});
    }
    GF_RETURN_IF_CUDA_ERROR(MlpFor(d_ff)->Run(visits.data(), static_cast<int>(visits.size()),
                                              x_.device(), y_.device(), compute_.stream()));
  }
  GF_RETURN_IF_CUDA_ERROR(cudaMemcpyAsync(y_.host(), y_.device(), n_y * sizeof(float),
                                          cudaMemcpyDeviceToHost, compute_.stream()));
  GF_RETURN_IF_CUDA_ERROR(cudaStreamSynchronize(compute_.stream()));
  std::memcpy(y, y_.host(), n_y * sizeof(float));
  return absl::OkStatus();
}

}  // namespace

absl::StatusOr<std::unique_ptr<ExpertBackend>> MakeCudaExpertBackend(const ModelWeights& weights) {
  int n_devices = 0;
  if (const cudaError_t error = cudaGetDeviceCount(&n_devices); error != cudaSuccess || n_devices == 0) {
    cudaGetLastError();
    return absl::FailedPreconditionError(
        absl::StrCat("no CUDA device: ", error == cudaSuccess ? "none is visible" : cudaGetErrorString(error)));
  }
  if (weights.expert_dtype() != DType::kBF16) {
    return absl::FailedPreconditionError(
        absl::StrCat("the cuda backend computes bfloat16 weights, the experts of this model are ",
                     DTypeName(weights.expert_dtype())));
  }
  cudaDeviceProp device;
  GF_RETURN_IF_CUDA_ERROR(cudaGetDeviceProperties(&device, 0));
  if (device.major < 8) {
    return absl::FailedPreconditionError(absl::StrCat(
        device.name, " has compute capability ", device.major, ".", device.minor, ", 8.0 is needed"));
  }
  uint64_t numerics = 0;
  GF_RETURN_IF_CUDA_ERROR(cuda::NumericsClass(&numerics));
  return std::make_unique<CudaExpertBackend>(device, weights.config().d_model, numerics);
}

}  // namespace gatefold
