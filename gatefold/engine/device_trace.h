#pragma once

#include <cuda_runtime.h>

#include <cstddef>
#include <cstdint>
#include <vector>

#include "absl/status/status.h"
#include "absl/types/span.h"
#include "gatefold/engine/expert_client.h"
#include "gatefold/engine/step_result.h"

namespace gatefold {

// The routes of a step's layers on their way from a device to the host: copied into pinned memory
// in the order of the stream, looked at once the step is over.
// Threads: one at a time; all on one stream, which is idle when this ends.
class DeviceTrace {
 public:
  DeviceTrace() = default;
  ~DeviceTrace();
  DeviceTrace(const DeviceTrace&) = delete;
  DeviceTrace& operator=(const DeviceTrace&) = delete;

  // Forgets the last step's. `max_routes`: of all layers together that this one may record.
  void Begin(size_t max_routes);
  // A layer's routes, as they lie on the device when the stream gets there.
  absl::Status Record(int layer, const Routes& routes, cudaStream_t stream);
  // Appends what was recorded; the stream has ended. `served_by` as of TraceOf().
  void AppendTo(absl::Span<const uint8_t> served_by, std::vector<LayerTrace>* trace) const;

 private:
  struct Recorded {
    int layer;
    Routes routes;  // in memory_
  };

  absl::Status Reserve();

  size_t max_routes_ = 0;
  char* memory_ = nullptr;  // pinned: by recorded layer its experts, then their weights
  size_t bytes_ = 0;
  cudaEvent_t copied_ = nullptr;  // the last copy to it
  std::vector<Recorded> recorded_;
};

}  // namespace gatefold
