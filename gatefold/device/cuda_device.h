#pragma once

#include <cstddef>
#include <cstdint>
#include <string>

#include "absl/status/statusor.h"
#include "absl/strings/string_view.h"

namespace gatefold {

// The first CUDA device, which is current in every thread.
struct CudaDevice {
  std::string name;       // for people: with its compute capability
  size_t free_bytes = 0;  // of its memory, now: others may use it as well
};

// FailedPrecondition if `bytes` of weights and caches would leave less than a twentieth of what is
// free to what calls need. what: for the message.
absl::Status CheckRoom(const CudaDevice& device, uint64_t bytes, absl::string_view what);

// NotFound: there is none. FailedPrecondition: it is too old. Both say why.
absl::StatusOr<CudaDevice> OpenCudaDevice();

}  // namespace gatefold
