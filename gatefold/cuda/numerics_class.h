#pragma once

#include <cuda_runtime.h>

#include <cstdint>

#include "gatefold/cuda/tiles.h"

namespace gatefold::cuda {

// A hash of what a fixed self-test of the kernels computes on the current device: it sees the device's
// architecture and the kernels' version. Two processes of equal class give equal bits for equal rows.
// Experts and attention have one each: what one of them lacks is no reason to refuse the other.
// Quantised experts are of another class than bfloat16 ones.
cudaError_t ExpertNumericsClass(WeightFormat format, uint64_t* hash);
cudaError_t AttentionNumericsClass(uint64_t* hash);

}  // namespace gatefold::cuda
