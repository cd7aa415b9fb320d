#include "gatefold/base/host_memory.h"

#include <cstdlib>

namespace gatefold {

HostMemory HeapMemory() {
  constexpr size_t kAlignment = 64;
  return {[](size_t bytes) {
            return std::aligned_alloc(kAlignment,
                                      (bytes + kAlignment - 1) / kAlignment * kAlignment);
          },
          std::free};
}

}  // namespace gatefold
