#pragma once

// The emulator's substitute for gatefold/cuda/launch.h.

#include <cuda_runtime.h>

#include <atomic>
#include <cstdint>

namespace gatefold::cuda {

struct Grid {
  int64_t n_blocks = 0;
  int n_threads = 0;
  int shared_bytes = 0;
  int cluster = 1;
  bool overlaps = false;
};

constexpr bool kMayOverlap = true;

inline constexpr int kMostSharedBytes = 227 * 1024, kSharedBytesUnasked = 48 * 1024;

template <typename... Params>
cudaError_t AllowShared(void (*kernel)(Params...), int bytes, bool, std::atomic<bool>* is_allowed) {
  if (*is_allowed) return cudaSuccess;
  if (bytes > kMostSharedBytes) return cudaErrorInvalidValue;
  const auto* const code = reinterpret_cast<const void*>(kernel);
  if (!emulator::Load(code)) return cudaErrorMemoryAllocation;
  emulator::AllowedSharedBytes(code) = bytes;
  *is_allowed = true;
  return cudaSuccess;
}

template <typename... Params>
int MaxActiveClusters(void (*)(Params...), const Grid&) {
  return 1;  // so that blocks take several units each
}

template <typename... Params, typename... Args>
cudaError_t LaunchKernel(void (*kernel)(Params...), const Grid& grid, cudaStream_t stream,
                         const Args&... args) {
  if (grid.n_blocks == 0) return cudaSuccess;
  if (grid.n_blocks < 0 || grid.n_blocks > INT32_MAX || grid.n_blocks % grid.cluster != 0 ||
      grid.n_threads < 1 || grid.n_threads > 1024) {
    return cudaErrorInvalidValue;
  }
  if (grid.shared_bytes > kSharedBytesUnasked &&
      grid.shared_bytes > emulator::AllowedSharedBytes(reinterpret_cast<const void*>(kernel))) {
    return cudaErrorInvalidValue;
  }
  if (emulator::IsLost()) return cudaErrorIllegalAddress;
  if (!emulator::Load(reinterpret_cast<const void*>(kernel))) return cudaErrorMemoryAllocation;
  emulator::Run(
      {grid.n_blocks, grid.n_threads, grid.shared_bytes, grid.cluster, grid.overlaps}, stream,
      [=] { kernel(args...); });
  return cudaSuccess;  // what a kernel does wrong, later calls say
}

}  // namespace gatefold::cuda
