#pragma once

#include <cstddef>
#include <string>

#include "absl/status/statusor.h"

namespace gatefold {

// The first CUDA device, which is current in every thread.
struct CudaDevice {
  std::string name;  // for people: with its compute capability
  size_t memory_bytes = 0;
};

// FailedPrecondition, saying why: there is none, or it is too old.
absl::StatusOr<CudaDevice> OpenCudaDevice();

}  // namespace gatefold
