#pragma once

#include <cuda_runtime.h>

#include <cstddef>

#include "absl/status/status.h"
#include "gatefold/base/host_memory.h"

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

// Pinned memory of the host, which the device copies from and to by itself.
HostMemory PinnedMemory();

// Bytes on their way between host and device: memory on the device, and pinned memory where the
// host's is not; as large as the largest batch so far. Threads: one at a time; all on one stream.
class ByteTransfer {
 public:
  ByteTransfer() = default;
  ~ByteTransfer();
  ByteTransfer(const ByteTransfer&) = delete;
  ByteTransfer& operator=(const ByteTransfer&) = delete;

  absl::Status Reserve(size_t bytes);
  absl::Status Send(const void* from, size_t bytes, cudaStream_t stream);
  absl::Status Fetch(size_t bytes, void* to, cudaStream_t stream);
  char* device() const { return device_; }

 private:
  absl::Status AwaitCopy();
  absl::Status ReserveStage(size_t bytes);

  size_t bytes_ = 0, stage_bytes_ = 0;
  char* device_ = nullptr;
  char* stage_ = nullptr;         // pinned
  cudaEvent_t copied_ = nullptr;  // the last copy out of the pinned memory or into it
};

// The same of values.
template <typename T>
class Transfer {
 public:
  // Room for n of them; content is lost where it has to grow.
  absl::Status Reserve(size_t n) { return bytes_.Reserve(n * sizeof(T)); }
  // Waits for the copy before, if that is still under way. The device has it in the order of the
  // stream. `from` is free again when this returns, or if it is pinned, after a Fetch().
  absl::Status Send(const T* from, size_t n, cudaStream_t stream) {
    return bytes_.Send(from, n * sizeof(T), stream);
  }
  // After a Reserve() or Send() of as many. Waits for what the stream has to do until now; then
  // `to` has what the device has.
  absl::Status Fetch(size_t n, T* to, cudaStream_t stream) {
    return bytes_.Fetch(n * sizeof(T), to, stream);
  }
  T* device() const { return reinterpret_cast<T*>(bytes_.device()); }

 private:
  ByteTransfer bytes_;
};
using RowTransfer = Transfer<float>;

}  // namespace gatefold
