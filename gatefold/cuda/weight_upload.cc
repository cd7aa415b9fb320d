#include "gatefold/cuda/weight_upload.h"

#include <algorithm>
#include <cstring>

#include "gatefold/cuda/cuda_macros.h"
#include "gatefold/cuda/pack_weights.h"

namespace gatefold::cuda {

WeightUpload::~WeightUpload() {
  cudaFreeHost(host_);
  cudaFree(device_);
  if (stream_ != nullptr) cudaStreamDestroy(stream_);
}

cudaError_t WeightUpload::Prepare() {
  if (stream_ != nullptr) return cudaSuccess;
  if (host_ == nullptr) GF_CUDA_RETURN_IF_ERROR(cudaMallocHost(&host_, kStagingBytes));
  if (device_ == nullptr) GF_CUDA_RETURN_IF_ERROR(cudaMalloc(&device_, kStagingBytes));
  return cudaStreamCreateWithFlags(&stream_, cudaStreamNonBlocking);
}

cudaError_t WeightUpload::Stage(const HostMatrix& rows, int64_t first, int64_t n) {
  // The stream is still reading what was sent before.
  GF_CUDA_RETURN_IF_ERROR(cudaStreamSynchronize(stream_));
  const size_t row_bytes = static_cast<size_t>(rows.n_cols) * sizeof(uint16_t);
  const char* from = static_cast<const char*>(rows.data);
  for (int64_t row = 0; row < n; ++row) {
    std::memcpy(host_ + row * row_bytes, from + (first + row) * rows.row_stride * sizeof(uint16_t),
                row_bytes);
  }
  return cudaSuccess;
}

cudaError_t WeightUpload::SendTiles(const HostMatrix& rows, const TileShape& shape,
                                    int64_t first_out, int matrix, void* tiles) {
  const size_t row_bytes = static_cast<size_t>(rows.n_cols) * sizeof(uint16_t);
  const int64_t most = row_bytes == 0 ? 0 : static_cast<int64_t>(kStagingBytes / row_bytes);
  if (most == 0 || rows.n_cols != shape.n_in) return cudaErrorInvalidValue;
  for (int64_t first = 0; first < rows.n_rows; first += most) {
    const int64_t n = std::min(most, rows.n_rows - first);
    GF_CUDA_RETURN_IF_ERROR(Stage(rows, first, n));
    GF_CUDA_RETURN_IF_ERROR(
        cudaMemcpyAsync(device_, host_, n * row_bytes, cudaMemcpyHostToDevice, stream_));
    GF_CUDA_RETURN_IF_ERROR(
        PackWeights(shape, device_, first_out + first, n, matrix, tiles, stream_));
  }
  return cudaSuccess;
}

cudaError_t WeightUpload::SendRows(const HostMatrix& rows, void* to) {
  const size_t row_bytes = static_cast<size_t>(rows.n_cols) * sizeof(uint16_t);
  const int64_t most = row_bytes == 0 ? 0 : static_cast<int64_t>(kStagingBytes / row_bytes);
  if (most == 0) return cudaErrorInvalidValue;
  for (int64_t first = 0; first < rows.n_rows; first += most) {
    const int64_t n = std::min(most, rows.n_rows - first);
    GF_CUDA_RETURN_IF_ERROR(Stage(rows, first, n));
    GF_CUDA_RETURN_IF_ERROR(cudaMemcpyAsync(static_cast<char*>(to) + first * row_bytes, host_,
                                            n * row_bytes, cudaMemcpyHostToDevice, stream_));
  }
  return cudaSuccess;
}

cudaError_t WeightUpload::SendFloats(const float* floats, int64_t n, float* to) {
  GF_CUDA_RETURN_IF_ERROR(
      cudaMemcpyAsync(to, floats, n * sizeof(float), cudaMemcpyHostToDevice, stream_));
  // CUDA does not promise that pageable memory has been read by now: it need not be staged.
  return cudaStreamSynchronize(stream_);
}

cudaError_t WeightUpload::Zero(void* memory, size_t bytes) {
  return cudaMemsetAsync(memory, 0, bytes, stream_);
}

cudaError_t WeightUpload::Finish() { return cudaStreamSynchronize(stream_); }

}  // namespace gatefold::cuda
