#include "gatefold/rpc/payload_buffer.h"

#include <algorithm>
#include <bit>
#include <cstdlib>
#include <new>
#include <vector>

#include "absl/base/thread_annotations.h"
#include "absl/synchronization/mutex.h"
#include "gatefold/base/check.h"

namespace gatefold {
namespace {

constexpr size_t kAlignment = 64;
constexpr int kSmallestClass = 12;  // 4 KiB
constexpr int kLargestClass = 27;   // 128 MiB; larger ones are not pooled

// Free blocks by size class (powers of two). Blocks are given back by whichever thread of gRPC
// drops the last reference.
class Pool {
 public:
  void* Take(int size_class) {
    {
      absl::MutexLock lock(&mu_);
      std::vector<void*>& blocks = free_[size_class - kSmallestClass];
      if (!blocks.empty()) {
        void* block = blocks.back();
        blocks.pop_back();
        pooled_bytes_ -= size_t{1} << size_class;
        return block;
      }
    }
    return Allocate(size_t{1} << size_class);
  }

  void Give(void* block, int size_class) {
    const size_t bytes = size_t{1} << size_class;
    {
      absl::MutexLock lock(&mu_);
      if (pooled_bytes_ + bytes <= kPooledBytes) {
        free_[size_class - kSmallestClass].push_back(block);
        pooled_bytes_ += bytes;
        return;
      }
    }
    std::free(block);
  }

  static void* Allocate(size_t bytes) {
    void* block =
        std::aligned_alloc(kAlignment, (bytes + kAlignment - 1) / kAlignment * kAlignment);
    GF_CHECK(block != nullptr);
    return block;
  }

 private:
  absl::Mutex mu_;
  std::vector<void*> free_[kLargestClass - kSmallestClass + 1] ABSL_GUARDED_BY(mu_);
  size_t pooled_bytes_ ABSL_GUARDED_BY(mu_) = 0;
};

// Never destroyed: gRPC's threads may drop a slice while the process ends.
Pool& ThePool() {
  static Pool* pool = new Pool;
  return *pool;
}

}  // namespace

PayloadBuffer::PayloadBuffer(size_t bytes) : size_bytes_(bytes) {
  if (bytes == 0) return;
  const int size_class = std::max<int>(kSmallestClass, std::bit_width(bytes - 1));
  if (size_class > kLargestClass) {
    memory_ = std::shared_ptr<void>(Pool::Allocate(bytes), std::free);
  } else {
    memory_ = std::shared_ptr<void>(ThePool().Take(size_class), [size_class](void* block) {
      ThePool().Give(block, size_class);
    });
  }
}

}  // namespace gatefold
