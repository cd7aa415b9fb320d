#pragma once

#include <cuda_runtime.h>

#include <atomic>
#include <cstdint>
#include <initializer_list>
#include <utility>

#include "gatefold/cuda/cuda_macros.h"

namespace gatefold::cuda {

struct Grid {
  int64_t n_blocks = 0;
  int n_threads = 0;     // of a block
  int shared_bytes = 0;  // more than 48 KB: after AllowShared
  int cluster = 1;       // blocks of a cluster, as the kernel's __cluster_dims__ says
  // kMayOverlap: may start while the kernel before still runs, and waits by AwaitKernelBefore (warp_ops.h)
  // before it touches what others do.
  bool overlaps = false;
};

// Whether this file's kernels are compiled for Hopper: in code for other devices, and what a driver makes of
// such code, they do not wait.
static constexpr bool IsCompiledFor(int architecture) {
  for (const int one : {__CUDA_ARCH_LIST__}) {
    if (one == architecture) return true;
  }
  return false;
}
constexpr bool kMayOverlap = IsCompiledFor(900);

// Whether the current device is a Hopper; all devices of a process are alike.
inline bool KernelsOverlap() {
  static const bool overlap = [] {
    int device = 0, major = 0;
    return cudaGetDevice(&device) == cudaSuccess &&
           cudaDeviceGetAttribute(&major, cudaDevAttrComputeCapabilityMajor, device) == cudaSuccess &&
           major == 9;
  }();
  return overlap;
}

// Lets a kernel have that much shared memory. prefer: with as little of the L1 as may be. Once per
// kernel is enough, and it costs a tenth of a launch: is_allowed, the kernel's own, says that it
// was done. What failed is tried again the next time, since this loads the kernel's code, for which
// a device may have no memory left now and have some later.
template <typename... Params>
cudaError_t AllowShared(void (*kernel)(Params...), int bytes, bool prefer,
                        std::atomic<bool>* is_allowed) {
  if (is_allowed->load(std::memory_order_acquire)) return cudaSuccess;
  GF_CUDA_RETURN_IF_ERROR(
      cudaFuncSetAttribute(kernel, cudaFuncAttributeMaxDynamicSharedMemorySize, bytes));
  if (prefer) {
    GF_CUDA_RETURN_IF_ERROR(cudaFuncSetAttribute(
        kernel, cudaFuncAttributePreferredSharedMemoryCarveout, cudaSharedmemCarveoutMaxShared));
  }
  is_allowed->store(true, std::memory_order_release);
  return cudaSuccess;
}

// How many clusters the device runs at once; 0 if it cannot say.
template <typename... Params>
int MaxActiveClusters(void (*kernel)(Params...), const Grid& grid) {
  cudaLaunchAttribute cluster = {};
  cluster.id = cudaLaunchAttributeClusterDimension;
  cluster.val.clusterDim.x = static_cast<unsigned>(grid.cluster);
  cluster.val.clusterDim.y = cluster.val.clusterDim.z = 1;
  cudaLaunchConfig_t config = {};
  config.gridDim = dim3(static_cast<unsigned>(grid.cluster));
  config.blockDim = dim3(static_cast<unsigned>(grid.n_threads));
  config.dynamicSmemBytes = static_cast<size_t>(grid.shared_bytes);
  config.attrs = &cluster;
  config.numAttrs = 1;
  int n = 0;
  return cudaOccupancyMaxActiveClusters(&n, kernel, &config) == cudaSuccess ? n : 0;
}

// Enqueues a kernel. No blocks: nothing, and cudaSuccess.
template <typename... Params, typename... Args>
cudaError_t LaunchKernel(void (*kernel)(Params...), const Grid& grid, cudaStream_t stream,
                         Args&&... args) {
  if (grid.n_blocks == 0) return cudaSuccess;
  if (grid.n_blocks < 0 || grid.n_blocks > INT32_MAX) return cudaErrorInvalidValue;
  cudaLaunchConfig_t config = {};
  config.gridDim = dim3(static_cast<unsigned>(grid.n_blocks));
  config.blockDim = dim3(static_cast<unsigned>(grid.n_threads));
  config.dynamicSmemBytes = static_cast<size_t>(grid.shared_bytes);
  config.stream = stream;
  cudaLaunchAttribute overlaps = {};
  overlaps.id = cudaLaunchAttributeProgrammaticStreamSerialization;
  overlaps.val.programmaticStreamSerializationAllowed = 1;
  if (grid.overlaps && KernelsOverlap()) {
    config.attrs = &overlaps;
    config.numAttrs = 1;
  }
  return cudaLaunchKernelEx(&config, kernel, std::forward<Args>(args)...);
}

}  // namespace gatefold::cuda
