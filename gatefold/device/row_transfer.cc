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

RowTransfer::~RowTransfer() {
  cudaFreeHost(host_);
  cudaFree(device_);
}

absl::Status RowTransfer::Reserve(size_t n) {
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

absl::Status RowTransfer::Send(const float* from, size_t n, cudaStream_t stream) {
  // A call that failed half-way may have left the stream reading.
  GF_RETURN_IF_CUDA_ERROR(cudaStreamSynchronize(stream));
  GF_RETURN_IF_ERROR(Reserve(n));
  std::memcpy(host_, from, n * sizeof(float));
  GF_RETURN_IF_CUDA_ERROR(
      cudaMemcpyAsync(device_, host_, n * sizeof(float), cudaMemcpyHostToDevice, stream));
  return absl::OkStatus();
}

absl::Status RowTransfer::Fetch(size_t n, float* to, cudaStream_t stream) {
  GF_RETURN_IF_CUDA_ERROR(
      cudaMemcpyAsync(host_, device_, n * sizeof(float), cudaMemcpyDeviceToHost, stream));
  GF_RETURN_IF_CUDA_ERROR(cudaStreamSynchronize(stream));
  std::memcpy(to, host_, n * sizeof(float));
  return absl::OkStatus();
}

}  // namespace gatefold
