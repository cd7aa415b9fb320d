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

}  // namespace gatefold
