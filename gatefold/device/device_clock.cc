#include "gatefold/device/device_clock.h"

#include "gatefold/device/cuda_status.h"

namespace gatefold {

DeviceClock::~DeviceClock() {
  if (start_ != nullptr) cudaEventDestroy(start_);
  if (stop_ != nullptr) cudaEventDestroy(stop_);
}

absl::Status DeviceClock::Start(cudaStream_t stream) {
  for (cudaEvent_t* event : {&start_, &stop_}) {
    if (*event == nullptr) GF_RETURN_IF_CUDA_ERROR(cudaEventCreate(event));
  }
  GF_RETURN_IF_CUDA_ERROR(cudaEventRecord(start_, stream));
  return absl::OkStatus();
}

absl::Status DeviceClock::Stop(cudaStream_t stream) {
  GF_RETURN_IF_CUDA_ERROR(cudaEventRecord(stop_, stream));
  return absl::OkStatus();
}

absl::Status DeviceClock::Count() {
  float milliseconds = 0;
  GF_RETURN_IF_CUDA_ERROR(cudaEventElapsedTime(&milliseconds, start_, stop_));
  seconds_ = seconds_ + milliseconds * 1e-3;
  return absl::OkStatus();
}

}  // namespace gatefold
