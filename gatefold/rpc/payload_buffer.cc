#include "gatefold/rpc/payload_buffer.h"

#include <algorithm>
#include <bit>
#include <vector>

#include "absl/base/thread_annotations.h"
#include "absl/synchronization/mutex.h"
#include "gatefold/base/check.h"
#include "gatefold/base/log.h"

namespace gatefold {
namespace {

constexpr int kSmallestClass = 12;  // 4 KiB
constexpr int kLargestClass = 27;   // 128 MiB; larger ones are not pooled

// Free blocks by size class (powers of two). Blocks are given back by whichever thread of gRPC
// drops the last reference.
class Pool {
 public:
  struct Block {
    void* data;
    HostMemory memory;  // where it came from
  };

  Block Take(int size_class) {
    HostMemory memory;
    {
      absl::MutexLock lock(&mu_);
      std::vector<void*>& blocks = free_[size_class - kSmallestClass];
      if (!blocks.empty()) {
        void* data = blocks.back();
        blocks.pop_back();
        pooled_bytes_ -= size_t{1} << size_class;
        return {data, memory_};
      }
      memory = memory_;
    }
    const size_t bytes = size_t{1} << size_class;
    if (void* data = memory.allocate(bytes); data != nullptr) return {data, memory};
    Empty(memory, memory);  // it may be here, in other sizes
    if (void* data = memory.allocate(bytes); data != nullptr) return {data, memory};
    // To ask each time would cost each time.
    if (Empty(memory, HeapMemory()) && memory != HeapMemory()) {
      LogEvent(LogLevel::kWarning, "payloads_in_heap", {{"bytes", bytes}});
    }
    return {AllocateFromHeap(bytes), HeapMemory()};
  }

  // Where there is no room for it, the largest go: few calls need them.
  void Give(const Block& block, int size_class) {
    std::vector<void*> unwanted;
    {
      absl::MutexLock lock(&mu_);
      if (block.memory == memory_) {
        free_[size_class - kSmallestClass].push_back(block.data);
        pooled_bytes_ += size_t{1} << size_class;
        for (int largest = kLargestClass; pooled_bytes_ > kPooledBytes; --largest) {
          std::vector<void*>& blocks = free_[largest - kSmallestClass];
          while (!blocks.empty() && pooled_bytes_ > kPooledBytes) {
            unwanted.push_back(blocks.back());
            blocks.pop_back();
            pooled_bytes_ -= size_t{1} << largest;
          }
        }
      } else {
        unwanted.push_back(block.data);
      }
    }
    for (void* data : unwanted) block.memory.free(data);
  }

  void SetMemory(const HostMemory& memory) {
    HostMemory before;
    do {
      absl::MutexLock lock(&mu_);
      before = memory_;
    } while (!Empty(before, memory));
  }

  static void* AllocateFromHeap(size_t bytes) {
    void* data = HeapMemory().allocate(bytes);
    GF_CHECK(data != nullptr);
    return data;
  }

 private:
  // Where memory still comes from `before`: gives all blocks back, and takes others from `after`
  // from now on.
  bool Empty(const HostMemory& before, const HostMemory& after) {
    std::vector<void*> unwanted;
    {
      absl::MutexLock lock(&mu_);
      if (memory_ != before) return false;
      for (std::vector<void*>& blocks : free_) {
        unwanted.insert(unwanted.end(), blocks.begin(), blocks.end());
        blocks.clear();
      }
      pooled_bytes_ = 0;
      memory_ = after;
    }
    for (void* data : unwanted) before.free(data);
    return true;
  }

  absl::Mutex mu_;
  HostMemory memory_ ABSL_GUARDED_BY(mu_) = HeapMemory();
  // All from memory_.
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
    memory_ = std::shared_ptr<void>(Pool::AllocateFromHeap(bytes), HeapMemory().free);
  } else {
    const Pool::Block block = ThePool().Take(size_class);
    memory_ = std::shared_ptr<void>(
        block.data, [block, size_class](void*) { ThePool().Give(block, size_class); });
  }
}

void SetPayloadMemory(const HostMemory& memory) { ThePool().SetMemory(memory); }

}  // namespace gatefold
