#pragma once

#include <cstddef>
#include <map>

#include "absl/base/thread_annotations.h"
#include "absl/synchronization/mutex.h"

namespace gatefold {

// Memory for large buffers, side by side in few mappings that ask for huge pages of 2 MiB. A
// mapping per buffer would have to be rounded up to whole huge pages, a third more for experts of
// 3 MB, or leave its end in small ones; here the pages span the borders, and what is lost is at
// most one page per mapping.
// Threads: safe.
class HugePages {
 public:
  static constexpr size_t kUnit = 4096;  // sizes are rounded up to it

  // Of the process; never destroyed.
  static HugePages& Global();

  HugePages() = default;
  ~HugePages();
  HugePages(const HugePages&) = delete;
  HugePages& operator=(const HugePages&) = delete;

  // Zeroed, aligned to kUnit, not touched yet. Throws std::bad_alloc if the system has none.
  void* Allocate(size_t bytes);
  // The memory goes back to the system at once. `bytes` as allocated.
  void Free(void* data, size_t bytes);

  size_t n_mappings() const;

 private:
  using Gaps = std::map<char*, size_t>;  // start and size of what is free, never touching another
  struct Mapping {
    size_t size = 0;
    Gaps gaps;
  };

  void* TakeFromGap(size_t bytes) ABSL_EXCLUSIVE_LOCKS_REQUIRED(mu_);
  void AddMapping(size_t bytes) ABSL_EXCLUSIVE_LOCKS_REQUIRED(mu_);

  mutable absl::Mutex mu_;
  std::map<char*, Mapping> mappings_ ABSL_GUARDED_BY(mu_);  // by start
};

}  // namespace gatefold
