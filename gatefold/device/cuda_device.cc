#include "gatefold/device/cuda_device.h"

#include <cuda_runtime.h>

#include "absl/strings/str_cat.h"
#include "gatefold/device/cuda_status.h"

namespace gatefold {
namespace {

// 12040 is 12.4.
std::string CudaVersion(int version) {
  return absl::StrCat(version / 1000, ".", version % 1000 / 10);
}

// Why there is none, of what counting them gave.
std::string WhyNoDevice(cudaError_t error) {
  if (error == cudaSuccess) return "none is visible";
  int driver = 0, runtime = 0;
  if (error == cudaErrorInsufficientDriver && cudaDriverGetVersion(&driver) == cudaSuccess &&
      cudaRuntimeGetVersion(&runtime) == cudaSuccess) {
    if (driver == 0) return "no NVIDIA driver is installed";
    return absl::StrCat("the driver is for CUDA up to ", CudaVersion(driver), ", this program for ",
                        CudaVersion(runtime),
                        "; a newer driver is needed, or a build with an older toolkit");
  }
  return cudaGetErrorString(error);
}

}  // namespace

absl::StatusOr<CudaDevice> OpenCudaDevice() {
  int n_devices = 0;
  if (const cudaError_t error = cudaGetDeviceCount(&n_devices);
      error != cudaSuccess || n_devices == 0) {
    cudaGetLastError();
    return absl::NotFoundError(absl::StrCat("no CUDA device: ", WhyNoDevice(error)));
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
