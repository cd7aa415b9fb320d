#pragma once

#include <cuda_runtime.h>

#include "absl/status/status.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/string_view.h"
#include "gatefold/base/status_macros.h"

namespace gatefold {

// ResourceExhausted for want of memory, else Unavailable: the device failed. `what` was called.
inline absl::Status CudaStatus(cudaError_t error, absl::string_view what) {
  if (error == cudaSuccess) return absl::OkStatus();
  const std::string message = absl::StrCat("CUDA: ", what, ": ", cudaGetErrorString(error));
  if (error == cudaErrorMemoryAllocation) {
    cudaGetLastError();  // not a failure of the device: it goes on
    return absl::ResourceExhaustedError(message);
  }
  return absl::UnavailableError(message);
}
#define GF_RETURN_IF_CUDA_ERROR(expression) \
  GF_RETURN_IF_ERROR(::gatefold::CudaStatus((expression), #expression))

// Hands on what a call of a service ended with. Where it failed because the device is lost to this
// process for good (a kernel that went astray, an error of the device's memory), it does not
// return: the log says device_lost and the process ends with 1. A new one may have the device
// again, callers go elsewhere meanwhile, and nothing is kept that cannot be computed anew.
absl::Status EndIfDeviceLost(absl::Status status);
// The same, of a call that somebody waits for: for them, a device without memory left is no better
// than one that failed.
absl::Status CallStatus(absl::Status status);

}  // namespace gatefold
