#include "attention-service/kv_block_pool.h"

#include <unistd.h>

#include <algorithm>
#include <limits>
#include <memory>

#include "absl/strings/str_cat.h"
#include "gatefold/base/check.h"

namespace gatefold {

size_t KvBlockPool::MachineBytes() {
  return static_cast<size_t>(sysconf(_SC_PHYS_PAGES)) * static_cast<size_t>(sysconf(_SC_PAGESIZE));
}

absl::StatusOr<std::unique_ptr<KvBlockPool>> KvBlockPool::Create(const KvShape& shape,
                                                                 size_t memory_bytes,
                                                                 size_t machine_bytes) {
  GF_CHECK(shape.BlockBytes() > 0);
  if (memory_bytes > machine_bytes) {
    return absl::InvalidArgumentError(
        absl::StrCat("kv_memory is ", memory_bytes, " bytes, this machine has ", machine_bytes));
  }
  const size_t n_blocks =
      std::min<size_t>(memory_bytes / shape.BlockBytes(), std::numeric_limits<BlockId>::max() / 2);
  if (n_blocks == 0) {
    return absl::InvalidArgumentError(absl::StrCat("kv_memory is ", memory_bytes,
                                                   " bytes, but one KV block of this model takes ",
                                                   shape.BlockBytes()));
  }
  return std::unique_ptr<KvBlockPool>(new KvBlockPool(shape, static_cast<int>(n_blocks)));
}

KvBlockPool::KvBlockPool(const KvShape& shape, int n_blocks) : shape_(shape), n_blocks_(n_blocks) {
  // Low ids first, so that a quiet service stays small in memory.
  for (BlockId id = n_blocks - 1; id >= 0; --id) free_.push_back(id);
}

absl::StatusOr<std::vector<BlockId>> KvBlockPool::Acquire(int count) {
  absl::MutexLock lock(&mu_);
  if (count > static_cast<int>(free_.size())) {
    return absl::ResourceExhaustedError(absl::StrCat("wanted ", count, " KV blocks, ", free_.size(),
                                                     " of ", n_blocks_, " are free"));
  }
  std::vector<BlockId> blocks(free_.rbegin(), free_.rbegin() + count);
  free_.resize(free_.size() - count);
  return blocks;
}

void KvBlockPool::Release(const std::vector<BlockId>& blocks) {
  absl::MutexLock lock(&mu_);
  free_.insert(free_.end(), blocks.rbegin(), blocks.rend());
  GF_CHECK(static_cast<int>(free_.size()) <= n_blocks_);
}

int KvBlockPool::n_free() const {
  absl::MutexLock lock(&mu_);
  return static_cast<int>(free_.size());
}

}  // namespace gatefold
