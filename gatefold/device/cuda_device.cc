#include "gatefold/device/cuda_device.h"

#include <cuda_runtime.h>

#include "absl/strings/str_cat.h"
#include "gatefold/device/cuda_status.h"

namespace gatefold {

absl::StatusOr<CudaDevice> OpenCudaDevice() {
  int n_devices = 0;
  if (int version = 0; cudaDriverGetVersion(&version) == cudaSuccess && version == 0) {
    return absl::NotFoundError("no CUDA device: no NVIDIA driver is installed");
  }
  if (const cudaError_t error = cudaGetDeviceCount(&n_devices);
      error != cudaSuccess || n_devices == 0) {
    cudaGetLastError();
    return absl::NotFoundError(absl::StrCat(
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
  size_t total = 0;
  GF_RETURN_IF_CUDA_ERROR(cudaMemGetInfo(&device.free_bytes, &total));
  return device;
}

absl::Status CheckRoom(const CudaDevice& device, uint64_t bytes, absl::string_view what) {
  if (bytes <= device.free_bytes / 20 * 19) return absl::OkStatus();
  return absl::FailedPreconditionError(absl::StrCat(what, " need ", bytes, " bytes on ",
                                                    device.name, ", where ", device.free_bytes,
                                                    " are free"));
}

}  // namespace gatefold
