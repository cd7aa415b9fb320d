#pragma once

#include <cuda_runtime.h>

#include <cstdint>

namespace gatefold::cuda {

// Enqueues a kernel that takes one struct. No blocks: nothing, and cudaSuccess.
template <typename Args>
cudaError_t LaunchKernel(void (*kernel)(Args), const Args& args, int64_t n_blocks, int n_threads,
                         int shared_bytes, cudaStream_t stream) {
  if (n_blocks == 0) return cudaSuccess;
  if (n_blocks < 0 || n_blocks > INT32_MAX) return cudaErrorInvalidValue;
  const void* const function = reinterpret_cast<const void*>(kernel);
  if (shared_bytes > 48 * 1024) {  // only on request, and best with little of the L1 kept
    cudaError_t error = cudaFuncSetAttribute(
        function, cudaFuncAttributeMaxDynamicSharedMemorySize, shared_bytes);
    if (error != cudaSuccess) return error;
    error = cudaFuncSetAttribute(function, cudaFuncAttributePreferredSharedMemoryCarveout,
                                 cudaSharedmemCarveoutMaxShared);
    if (error != cudaSuccess) return error;
  }
  void* params[] = {const_cast<Args*>(&args)};
  return cudaLaunchKernel(function, dim3(static_cast<unsigned>(n_blocks)),
                          dim3(static_cast<unsigned>(n_threads)), params, shared_bytes, stream);
}

}  // namespace gatefold::cuda
