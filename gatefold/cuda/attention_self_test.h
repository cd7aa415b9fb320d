#pragma once

#include <cuda_runtime.h>

#include <vector>

namespace gatefold::cuda {

// Rows and logits that a fixed small model's attention gives on the current device, in prefill and
// in decode: what AttentionNumericsClass hashes.
cudaError_t AttentionSelfTest(std::vector<float>* answers);

}  // namespace gatefold::cuda
