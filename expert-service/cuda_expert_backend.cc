#include <cuda_runtime.h>

#include <algorithm>
#include <atomic>
#include <utility>
#include <vector>

#include "absl/base/thread_annotations.h"
#include "absl/strings/str_cat.h"
#include "absl/synchronization/mutex.h"
#include "expert-service/expert_backend.h"
#include "gatefold/base/check.h"
#include "gatefold/base/status_macros.h"
#include "gatefold/cuda/device_memory.h"
#include "gatefold/cuda/expert_mlp.h"
#include "gatefold/cuda/numerics_class.h"
#include "gatefold/cuda/routed_mlp.h"
#include "gatefold/cuda/weight_upload.h"
#include "gatefold/device/cuda_device.h"
#include "gatefold/device/cuda_status.h"
#include "gatefold/device/device_clock.h"
#include "gatefold/device/row_transfer.h"
#include "gatefold/kernels/to_floats.h"

namespace gatefold {
namespace {

// Tiles of both products, then the biases, in one piece of device memory.
struct CudaExpert final : HeldExpert {
  explicit CudaExpert(const cuda::ExpertShape& shape)
      : d_ff(shape.d_ff),
        w2_at(shape.w13().weight_bytes()),
        biases_at(shape.weight_bytes()),
        bytes(SizeBytes(shape)) {}
  ~CudaExpert() override { cudaFree(memory); }
  size_t size_bytes() const override { return bytes; }
  static size_t SizeBytes(const cuda::ExpertShape& shape) {
    return shape.weight_bytes() +
           static_cast<size_t>(2 * shape.d_ff + shape.d_model) * sizeof(float);
  }
  // can_read_back() is false.
  void CopyRow(ExpertPart, DType, int64_t, void*) const override { GF_CHECK(false); }

  const int64_t d_ff;
  const size_t w2_at, biases_at, bytes;
  char* memory = nullptr;
  cuda::DeviceExpert parts;
};

cuda::WeightFormat FormatOf(WeightKind weights) {
  switch (weights) {
    case WeightKind::kCheckpoint:
      return cuda::WeightFormat::kBF16;
    case WeightKind::kInt8:
      return cuda::WeightFormat::kInt8;
    case WeightKind::kInt4:
      return cuda::WeightFormat::kInt4;
  }
  GF_CHECK(false);
}

// Behind the device's name, for people.
const char* NameOf(cuda::WeightFormat format) {
  return format == cuda::WeightFormat::kBF16   ? ""
         : format == cuda::WeightFormat::kInt8 ? ", int8"
                                               : ", int4";
}

// Experts of one shape, and a table of where they lie on the device.
class CudaResidentExperts final : public ResidentExperts {
 public:
  using Experts = std::vector<std::vector<std::shared_ptr<const HeldExpert>>>;

  CudaResidentExperts(Experts experts, const cuda::ExpertShape& shape, int top_k,
                      CudaStream* stream)
      : experts_(std::move(experts)),
        n_experts_(experts_[0].size()),
        stream_(stream),
        mlp_(shape, static_cast<int>(n_experts_), top_k) {}
  ~CudaResidentExperts() override { cudaFreeHost(counted_); }

  absl::Status Prepare(int max_rows);
  absl::Status Run(int layer, const float* h, const Routes& routes, float* answers) override;
  uint64_t n_rows(int layer, int expert) const override {
    // The device writes it while others read.
    return std::atomic_ref<uint64_t>(counted_[layer * n_experts_ + expert])
        .load(std::memory_order_relaxed);
  }

 private:
  const Experts experts_;
  const size_t n_experts_;  // of a layer
  CudaStream* const stream_;
  cuda::DeviceMemory table_;     // DeviceExpert [layer, expert]
  cuda::DeviceMemory counts_;    // uint64_t [layer, expert]: rows
  uint64_t* counted_ = nullptr;  // the same on the host, of steps that are over: pinned

  absl::Mutex mu_;
  cuda::RoutedMlp mlp_ ABSL_GUARDED_BY(mu_);
};

absl::Status CudaResidentExperts::Prepare(int max_rows) {
  {
    absl::MutexLock lock(&mu_);
    GF_RETURN_IF_CUDA_ERROR(mlp_.Prepare(max_rows));
  }
  std::vector<cuda::DeviceExpert> table;
  for (const auto& layer : experts_) {
    for (const auto& expert : layer) {
      table.push_back(static_cast<const CudaExpert*>(expert.get())->parts);
    }
  }
  const size_t count_bytes = table.size() * sizeof(uint64_t);
  GF_RETURN_IF_CUDA_ERROR(cudaMallocHost(&counted_, count_bytes));
  std::fill_n(counted_, table.size(), 0);
  GF_RETURN_IF_CUDA_ERROR(counts_.Reserve(count_bytes));
  GF_RETURN_IF_CUDA_ERROR(cudaMemset(counts_.get(), 0, count_bytes));
  GF_RETURN_IF_CUDA_ERROR(table_.Reserve(table.size() * sizeof(table[0])));
  GF_RETURN_IF_CUDA_ERROR(cudaMemcpy(table_.get(), table.data(), table.size() * sizeof(table[0]),
                                     cudaMemcpyHostToDevice));
  GF_RETURN_IF_CUDA_ERROR(cudaDeviceSynchronize());  // the stream does not wait for these
  return absl::OkStatus();
}

absl::Status CudaResidentExperts::Run(int layer, const float* h, const Routes& routes,
                                      float* answers) {
  absl::MutexLock lock(&mu_);
  auto* const counts = reinterpret_cast<uint64_t*>(counts_.get());
  const size_t first = layer * n_experts_;
  cudaError_t error =
      mlp_.Run(reinterpret_cast<const cuda::DeviceExpert*>(table_.get()) + first,
               routes.experts.data(), routes.n_rows, h, answers, counts + first, stream_->get());
  if (error == cudaSuccess && layer + 1 == static_cast<int>(experts_.size())) {
    error = cudaMemcpyAsync(counted_, counts, experts_.size() * n_experts_ * sizeof(uint64_t),
                            cudaMemcpyDeviceToHost, stream_->get());
  }
  if (error == cudaSuccess) return absl::OkStatus();
  return CallStatus(CudaStatus(error, absl::StrCat("experts of layer ", layer)));
}

class CudaExpertBackend final : public ExpertBackend {
 public:
  CudaExpertBackend(const CudaDevice& device, cuda::WeightFormat format, int64_t d_model,
                    uint64_t numerics)
      : device_(absl::StrCat(device.name, NameOf(format))),
        format_(format),
        numerics_(numerics),
        d_model_(d_model) {}

  std::string name() const override { return "cuda"; }
  std::string device() const override { return device_; }
  uint64_t numerics_class() const override { return numerics_; }
  double device_seconds() const override { return clock_.seconds(); }
  HostMemory row_memory() const override { return PinnedMemory(); }
  size_t HeldBytes(const ExpertLayout::Sizes& expert) const override {
    return CudaExpert::SizeBytes({expert.d_model, expert.d_ff, format_});
  }
  bool can_read_back() const override { return false; }

  absl::StatusOr<std::shared_ptr<const HeldExpert>> Load(const ExpertWeightsView& view,
                                                         ThreadPool* /*threads*/) override {
    auto expert = Upload(view);
    if (!expert.ok()) return EndIfDeviceLost(expert.status());
    return expert;
  }
  absl::Status Run(absl::Span<const HeldGroup> groups, const float* x, int n_rows,
                   float* y) override {
    return CallStatus(Compute(groups, x, n_rows, y));
  }
  absl::StatusOr<std::unique_ptr<ResidentExperts>> Reside(CudaResidentExperts::Experts experts,
                                                          int top_k, int max_rows,
                                                          size_t spare_bytes,
                                                          CudaStream* stream) override;

 private:
  absl::StatusOr<std::shared_ptr<const HeldExpert>> Upload(const ExpertWeightsView& view);
  absl::Status Compute(absl::Span<const HeldGroup> groups, const float* x, int n_rows, float* y);
  absl::Status SendMatrix(const MatrixView& matrix, const cuda::TileShape& shape, int which,
                          char* tiles) ABSL_EXCLUSIVE_LOCKS_REQUIRED(load_mu_);
  // `to`, or null if there is none.
  absl::StatusOr<const float*> SendBias(const TensorView& bias, float* to)
      ABSL_EXCLUSIVE_LOCKS_REQUIRED(load_mu_);
  // Runs of visits of experts of one shape: slices of a dense layer may differ in size.
  cuda::ExpertMlp* MlpFor(int64_t d_ff);

  const std::string device_;
  const cuda::WeightFormat format_;
  const uint64_t numerics_;
  const int64_t d_model_;

  absl::Mutex load_mu_;
  cuda::WeightUpload upload_ ABSL_GUARDED_BY(load_mu_);

  // Of Run() alone.
  CudaStream stream_;
  RowTransfer x_, y_;
  DeviceClock clock_;
  std::vector<std::pair<int64_t, std::unique_ptr<cuda::ExpertMlp>>> mlps_;  // by d_ff
};

absl::StatusOr<std::shared_ptr<const HeldExpert>> CudaExpertBackend::Upload(
    const ExpertWeightsView& view) {
  const cuda::ExpertShape shape{view.w2.n_rows, view.w1.n_rows, format_};
  auto expert = std::make_shared<CudaExpert>(shape);
  absl::MutexLock lock(&load_mu_);
  GF_RETURN_IF_CUDA_ERROR(upload_.Prepare());
  GF_RETURN_IF_CUDA_ERROR(cudaMalloc(&expert->memory, expert->bytes));
  char* memory = expert->memory;
  GF_RETURN_IF_CUDA_ERROR(upload_.Zero(memory, expert->bytes));
  GF_RETURN_IF_ERROR(SendMatrix(view.w1, shape.w13(), 0, memory));
  GF_RETURN_IF_ERROR(SendMatrix(view.w3, shape.w13(), 1, memory));
  GF_RETURN_IF_ERROR(SendMatrix(view.w2, shape.w2(), 0, memory + expert->w2_at));
  auto* biases = reinterpret_cast<float*>(memory + expert->biases_at);
  GF_ASSIGN_OR_RETURN(expert->parts.b1, SendBias(view.b1, biases));
  GF_ASSIGN_OR_RETURN(expert->parts.b3, SendBias(view.b3, biases + shape.d_ff));
  GF_ASSIGN_OR_RETURN(expert->parts.b2, SendBias(view.b2, biases + 2 * shape.d_ff));
  expert->parts.w13 = memory;
  expert->parts.w2 = memory + expert->w2_at;
  GF_RETURN_IF_CUDA_ERROR(upload_.Finish());
  return expert;
}

absl::StatusOr<const float*> CudaExpertBackend::SendBias(const TensorView& bias, float* to) {
  if (bias.data == nullptr) return nullptr;
  const Buffer values = ToFloats(bias);
  GF_RETURN_IF_CUDA_ERROR(upload_.SendFloats(values.as<float>(), bias.n_elements(), to));
  return to;
}

absl::Status CudaExpertBackend::SendMatrix(const MatrixView& matrix, const cuda::TileShape& shape,
                                           int which, char* tiles) {
  const cuda::HostMatrix rows = {matrix.data, matrix.n_rows, matrix.n_cols, matrix.row_stride};
  GF_RETURN_IF_CUDA_ERROR(upload_.SendTiles(rows, shape, 0, which, tiles));
  return absl::OkStatus();
}

cuda::ExpertMlp* CudaExpertBackend::MlpFor(int64_t d_ff) {
  for (const auto& [size, mlp] : mlps_) {
    if (size == d_ff) return mlp.get();
  }
  mlps_.emplace_back(d_ff,
                     std::make_unique<cuda::ExpertMlp>(cuda::ExpertShape{d_model_, d_ff, format_}));
  return mlps_.back().second.get();
}

absl::Status CudaExpertBackend::Compute(absl::Span<const HeldGroup> groups, const float* x,
                                        int n_rows, float* y) {
  size_t n_slots = 0;
  for (const HeldGroup& group : groups) n_slots += group.rows.size();
  if (n_slots == 0) return absl::OkStatus();
  const size_t n_x = static_cast<size_t>(n_rows) * d_model_, n_y = n_slots * d_model_;
  GF_RETURN_IF_ERROR(stream_.Prepare());
  GF_RETURN_IF_ERROR(y_.Reserve(n_y));
  GF_RETURN_IF_ERROR(x_.Send(x, n_x, stream_.get()));
  GF_RETURN_IF_ERROR(clock_.Start(stream_.get()));
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
                                              x_.device(), y_.device(), stream_.get()));
  }
  GF_RETURN_IF_ERROR(clock_.Stop(stream_.get()));
  GF_RETURN_IF_ERROR(y_.Fetch(n_y, y, stream_.get()));
  return clock_.Count();
}

absl::StatusOr<std::unique_ptr<ResidentExperts>> CudaExpertBackend::Reside(
    CudaResidentExperts::Experts experts, int top_k, int max_rows, size_t spare_bytes,
    CudaStream* stream) {
  const int64_t d_ff = static_cast<const CudaExpert*>(experts[0][0].get())->d_ff;
  for (const auto& layer : experts) {
    for (const auto& expert : layer) {
      const int64_t other = static_cast<const CudaExpert*>(expert.get())->d_ff;
      if (other == d_ff) continue;
      return absl::FailedPreconditionError(
          absl::StrCat("experts of ", d_ff, " and of ", other, " hidden units"));
    }
  }
  const cuda::ExpertShape shape = {d_model_, d_ff, format_};
  auto resident = std::make_unique<CudaResidentExperts>(std::move(experts), shape, top_k, stream);
  GF_RETURN_IF_ERROR(resident->Prepare(max_rows));
  size_t free = 0, total = 0;
  GF_RETURN_IF_CUDA_ERROR(cudaMemGetInfo(&free, &total));
  if (free < spare_bytes) {
    return absl::ResourceExhaustedError(absl::StrCat("with room for ", max_rows, " rows a step ",
                                                     free, " bytes are left, ", spare_bytes,
                                                     " should be"));
  }
  return resident;
}

}  // namespace

absl::StatusOr<std::unique_ptr<ExpertBackend>> MakeCudaExpertBackend(
    const ExpertBackendOptions& options) {
  GF_ASSIGN_OR_RETURN(const CudaDevice device, OpenCudaDevice());
  if (options.dtype != DType::kBF16) {
    return absl::FailedPreconditionError(
        absl::StrCat("the cuda backend takes bfloat16 weights, the experts of this model are ",
                     DTypeName(options.dtype)));
  }
  const cuda::WeightFormat format = FormatOf(options.weights);
  uint64_t bytes = 0;
  for (const ExpertLayout::Sizes& expert : options.experts) {
    bytes += CudaExpert::SizeBytes({expert.d_model, expert.d_ff, format});
  }
  GF_RETURN_IF_ERROR(CheckRoom(device, bytes, "the experts"));
  uint64_t numerics = 0;
  GF_RETURN_IF_CUDA_ERROR(cuda::ExpertNumericsClass(format, &numerics));
  return std::make_unique<CudaExpertBackend>(device, format, options.d_model, numerics);
}

}  // namespace gatefold
