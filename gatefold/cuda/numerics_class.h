#pragma once

#include <cuda_runtime.h>

#include <cstdint>

namespace gatefold::cuda {

// A hash of what a fixed self-test of the kernels computes on the current device: it sees the device's
// architecture and the kernels' version. Two processes of equal class give equal bits for equal rows.
cudaError_t NumericsClass(uint64_t* hash);

}  // namespace gatefold::cuda
