#include "gatefold/device/row_transfer.h"

#include <cstring>

#include "gatefold/device/cuda_status.h"

namespace gatefold {

CudaStream::~CudaStream() {
  if (stream_ != nullptr) cudaStreamDestroy(stream_);
}

absl::Status CudaStream::Prepare() {
  if (stream_ != nullptr) return absl::OkStatus();
  GF_RETURN_IF_CUDA_ERROR(cudaStreamCreateWithFlags(&stream_, cudaStreamNonBlocking));
  return absl::OkStatus();
}

HostMemory PinnedMemory() {
  return {[](size_t bytes) -> void* {
            void* memory = nullptr;
            if (cudaMallocHost(&memory, bytes) == cudaSuccess) return memory;
            cudaGetLastError();  // it is dealt with
            return nullptr;
          },
          [](void* memory) { cudaFreeHost(memory); }};
}

namespace {

bool IsPinned(const void* memory) {
  cudaPointerAttributes attributes;
  return cudaPointerGetAttributes(&attributes, memory) == cudaSuccess &&
         attributes.type == cudaMemoryTypeHost;
}

}  // namespace

ByteTransfer::~ByteTransfer() {
  cudaFreeHost(stage_);
  cudaFree(device_);
  if (copied_ != nullptr) cudaEventDestroy(copied_);
}

// A call that failed half-way may have left one under way, too.
absl::Status ByteTransfer::AwaitCopy() {
  if (copied_ == nullptr) {
    GF_RETURN_IF_CUDA_ERROR(cudaEventCreateWithFlags(&copied_, cudaEventDisableTiming));
  }
  GF_RETURN_IF_CUDA_ERROR(cudaEventSynchronize(copied_));
  return absl::OkStatus();
}

absl::Status ByteTransfer::Reserve(size_t bytes) {
  GF_RETURN_IF_ERROR(AwaitCopy());
  if (bytes <= bytes_) return absl::OkStatus();
  cudaFree(device_);
  device_ = nullptr;
  bytes_ = 0;
  const size_t more = bytes + bytes / 2;
  GF_RETURN_IF_CUDA_ERROR(cudaMalloc(&device_, more));
  bytes_ = more;
  return absl::OkStatus();
}

absl::Status ByteTransfer::ReserveStage(size_t bytes) {
  GF_RETURN_IF_ERROR(AwaitCopy());
  if (bytes <= stage_bytes_) return absl::OkStatus();
  cudaFreeHost(stage_);
  stage_ = nullptr;
  stage_bytes_ = 0;
  const size_t more = bytes + bytes / 2;
  GF_RETURN_IF_CUDA_ERROR(cudaMallocHost(&stage_, more));
  stage_bytes_ = more;
  return absl::OkStatus();
}

absl::Status ByteTransfer::Send(const void* from, size_t bytes, cudaStream_t stream) {
  GF_RETURN_IF_ERROR(Reserve(bytes));
  if (!IsPinned(from)) {
    GF_RETURN_IF_ERROR(ReserveStage(bytes));
    from = std::memcpy(stage_, from, bytes);
  }
  GF_RETURN_IF_CUDA_ERROR(cudaMemcpyAsync(device_, from, bytes, cudaMemcpyHostToDevice, stream));
  GF_RETURN_IF_CUDA_ERROR(cudaEventRecord(copied_, stream));
  return absl::OkStatus();
}

absl::Status ByteTransfer::Fetch(size_t bytes, void* to, cudaStream_t stream) {
  const bool staged = !IsPinned(to);
  if (staged) GF_RETURN_IF_ERROR(ReserveStage(bytes));
  GF_RETURN_IF_CUDA_ERROR(
      cudaMemcpyAsync(staged ? stage_ : to, device_, bytes, cudaMemcpyDeviceToHost, stream));
  GF_RETURN_IF_CUDA_ERROR(cudaEventRecord(copied_, stream));
  GF_RETURN_IF_ERROR(AwaitCopy());
  if (staged) std::memcpy(to, stage_, bytes);
  return absl::OkStatus();
}

}  // namespace gatefold
