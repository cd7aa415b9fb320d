#pragma once

#include <cstddef>
#include <cstdint>
#include <memory>

#include "gatefold/base/host_memory.h"

namespace gatefold {

// Memory for one tensor on its way out: filled once, then handed to WriteFrame(), which sends it
// without a copy. gRPC may read it long after a stream was cancelled or a late call forgotten, so
// the memory must not be reused by hand: it goes back to a pool when the last reader lets go.
// Aligned to 64 bytes, not zeroed. An empty one has data() null. Copies share the memory.
// Threads: as std::shared_ptr; the pool is safe.
class PayloadBuffer {
 public:
  PayloadBuffer() = default;
  // Takes memory from the pool of the process, see below; more than 128 MiB from the heap.
  explicit PayloadBuffer(size_t bytes);

  void* data() { return memory_.get(); }
  const void* data() const { return memory_.get(); }
  template <typename T>
  T* as() {
    return static_cast<T*>(memory_.get());
  }
  size_t size_bytes() const { return size_bytes_; }

 private:
  std::shared_ptr<void> memory_;
  size_t size_bytes_ = 0;
};

// The pool keeps at most this much memory that nobody uses; more is given back, the largest blocks
// first.
inline constexpr size_t kPooledBytes = size_t{256} << 20;

// Where the pool takes memory from, from now on. At first it is the heap, and so it is again where
// that memory has none left, which is logged.
void SetPayloadMemory(const HostMemory& memory);

}  // namespace gatefold
