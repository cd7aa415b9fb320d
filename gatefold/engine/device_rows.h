#pragma once

#include <memory>

#include "absl/status/statusor.h"
#include "gatefold/engine/step_rows.h"

namespace gatefold {

class CudaStream;  // gatefold/device/row_transfer.h

// Norms and gates in a device's memory, for lanes whose rows stay there. Immutable.
class DeviceRouter {
 public:
  virtual ~DeviceRouter() = default;

  // Rows of a lane in the device's memory, with room for n_rows from the start: more than that is
  // taken when a step has more. They outlive neither this nor the stream. Their phases are timed by
  // the device, in some of the steps (see PhaseClock).
  // ResourceExhausted: the device has no room for them.
  virtual absl::StatusOr<std::unique_ptr<StepRows>> MakeRows(int n_rows) const = 0;
};

// Copies norms and gates. All work is put on the stream. `wire_dtype`: as for MakeHostRows.
// FailedPrecondition, saying why: this build has no CUDA, or the shape is not computed there.
// ResourceExhausted: the device has no room for them.
absl::StatusOr<std::unique_ptr<DeviceRouter>> MakeDeviceRouter(const RouterModel& model,
                                                               DType wire_dtype,
                                                               CudaStream* stream);

}  // namespace gatefold
