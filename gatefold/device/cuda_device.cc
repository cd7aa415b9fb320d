#include "gatefold/device/cuda_device.h"

#include <cuda_runtime.h>

#include "absl/strings/str_cat.h"
#include "gatefold/device/cuda_status.h"

namespace gatefold {

absl::StatusOr<CudaDevice> OpenCudaDevice() {
  int n_devices = 0;
  if (const cudaError_t error = cudaGetDeviceCount(&n_devices);
      error != cudaSuccess || n_devices == 0) {
    cudaGetLastError();
    return absl::FailedPreconditionError(absl::StrCat(
        "no CUDA device: ", error == cudaSuccess ? "none is visible" : cudaGetErrorString(error)));
  }
  cudaDeviceProp properties;
  GF_RETURN_IF_CUDA_ERROR(cudaGetDeviceProperties(&properties, 0));
  const std::string capability =
      absl::StrCat("compute capability ", properties.major, ".", properties.minor);
  if (properties.major < 8) {
    return absl::FailedPreconditionError(
        absl::StrCat(properties.name, " has ", capability, ", 8.0 is needed"));
  }
  CudaDevice device;
  device.name = absl::StrCat(properties.name, " (", capability, ")");
  device.memory_bytes = properties.totalGlobalMem;
  return device;
}

}  // namespace gatefold
