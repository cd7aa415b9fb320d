#include "gatefold/device/cuda_status.h"

#include <cstdlib>
#include <utility>

#include "gatefold/base/log.h"

namespace gatefold {

absl::Status EndIfDeviceLost(absl::Status status) {
  if (status.ok()) return status;
  cudaGetLastError();  // of one call: forgotten. What is left is the device's.
  const cudaError_t lost = cudaDeviceSynchronize();
  if (lost == cudaSuccess) return status;
  LogEvent(LogLevel::kError, "device_lost",
           {{"error", cudaGetErrorString(lost)}, {"call", status.message()}});
  std::_Exit(1);  // what would be cleaned up is on the device
}

absl::Status CallStatus(absl::Status status) {
  status = EndIfDeviceLost(std::move(status));
  return status.ok() ? status : absl::UnavailableError(status.message());
}

}  // namespace gatefold
