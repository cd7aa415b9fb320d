#pragma once

#include <cuda_runtime.h>

#include <cstddef>

#include "absl/status/status.h"

namespace gatefold {

// A stream of its own, made on the first Prepare().
class CudaStream {
 public:
  CudaStream() = default;
  ~CudaStream();
  CudaStream(const CudaStream&) = delete;
  CudaStream& operator=(const CudaStream&) = delete;

  absl::Status Prepare();
  cudaStream_t get() const { return stream_; }

 private:
  cudaStream_t stream_ = nullptr;
};

// Floats on their way between host and device: pinned memory and as much on the device, as large as
// the largest batch so far. Threads: one at a time.
class RowTransfer {
 public:
  RowTransfer() = default;
  ~RowTransfer();
  RowTransfer(const RowTransfer&) = delete;
  RowTransfer& operator=(const RowTransfer&) = delete;

  // Room for n floats; content is lost where it has to grow.
  absl::Status Reserve(size_t n);
  // Waits for what the stream did before. `from` is free again when this returns; the device has it
  // in the order of the stream.
  absl::Status Send(const float* from, size_t n, cudaStream_t stream);
  // Waits for the stream; then `to` has what the device has.
  absl::Status Fetch(size_t n, float* to, cudaStream_t stream);

  float* device() const { return device_; }

 private:
  size_t n_ = 0;
  float* host_ = nullptr;
  float* device_ = nullptr;
};

}  // namespace gatefold
