#pragma once

#include <cstdint>

namespace gatefold::cuda {

// Whether kernels may read and write it sixteen bytes at a time.
inline bool IsAligned(const void* pointer) {
  return pointer != nullptr && reinterpret_cast<uintptr_t>(pointer) % 16 == 0;
}

}  // namespace gatefold::cuda
