#pragma once

#include <cstddef>

namespace gatefold {

// Where memory of the host is taken from. Threads: both functions are safe.
struct HostMemory {
  void* (*allocate)(size_t bytes);  // aligned to 64 bytes, not zeroed; null: there is none left
  void (*free)(void* memory);

  bool operator==(const HostMemory&) const = default;
};

HostMemory HeapMemory();

}  // namespace gatefold
