#pragma once

#include <cuda_runtime.h>

#include <atomic>

#include "absl/status/status.h"

namespace gatefold {

// How long the device took for what lies between Start and Stop, by its own clock: what is left of
// a call's time is copies, launches and the host. Threads: one at a time, but for seconds().
class DeviceClock {
 public:
  DeviceClock() = default;
  ~DeviceClock();
  DeviceClock(const DeviceClock&) = delete;
  DeviceClock& operator=(const DeviceClock&) = delete;

  absl::Status Start(cudaStream_t stream);
  absl::Status Stop(cudaStream_t stream);
  // Counts the time between the two, once the stream was waited for.
  absl::Status Count();

  // Of all that was counted. Threads: safe.
  double seconds() const { return seconds_; }

 private:
  cudaEvent_t start_ = nullptr;
  cudaEvent_t stop_ = nullptr;
  std::atomic<double> seconds_{0};
};

}  // namespace gatefold
