#include "gatefold/engine/device_rows.h"

namespace gatefold {

absl::StatusOr<std::unique_ptr<DeviceRouter>> MakeDeviceRouter(const RouterModel& /*model*/,
                                                               DType /*wire_dtype*/,
                                                               CudaStream* /*stream*/) {
  return absl::FailedPreconditionError("this build has no CUDA (GATEFOLD_WITH_CUDA)");
}

}  // namespace gatefold
