#pragma once

#include <cuda_runtime.h>

#include <cstddef>

namespace gatefold::cuda {

// One piece of device memory, aligned to 256 bytes.
class DeviceMemory {
 public:
  DeviceMemory() = default;
  ~DeviceMemory() { cudaFree(data_); }
  DeviceMemory(const DeviceMemory&) = delete;
  DeviceMemory& operator=(const DeviceMemory&) = delete;

  // At least `bytes`; content is lost where it has to grow, and work that uses it is waited for.
  cudaError_t Reserve(size_t bytes) {
    if (bytes <= bytes_) return cudaSuccess;
    cudaFree(data_);
    data_ = nullptr;
    bytes_ = 0;
    const cudaError_t error = cudaMalloc(&data_, bytes);
    if (error == cudaSuccess) bytes_ = bytes;
    return error;
  }

  // The same, of zeros when it has grown, for whichever stream.
  cudaError_t ReserveZeros(size_t bytes) {
    if (bytes <= bytes_) return cudaSuccess;
    cudaError_t error = Reserve(bytes);
    if (error == cudaSuccess) error = cudaMemset(data_, 0, bytes_);
    if (error == cudaSuccess) error = cudaDeviceSynchronize();
    if (error != cudaSuccess) bytes_ = 0;  // not to be used as it is
    return error;
  }

  char* get() const { return data_; }
  size_t bytes() const { return bytes_; }

 private:
  char* data_ = nullptr;
  size_t bytes_ = 0;
};

}  // namespace gatefold::cuda
