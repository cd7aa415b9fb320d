#pragma once

#include <cstdint>
#include <memory>
#include <vector>

#include "absl/base/thread_annotations.h"
#include "absl/status/statusor.h"
#include "absl/synchronization/mutex.h"
#include "gatefold/kernels/attention.h"

namespace gatefold {

using BlockId = int32_t;

// What a KV block holds: keys and values of 16 positions in every layer.
struct KvShape {
  int n_layers = 0;
  kernels::KvLayout layout;
  int element_bytes = sizeof(float);

  // Of the keys (or of the values) of one block in one layer.
  size_t LayerElements() const { return static_cast<size_t>(layout.BlockFloats()); }
  size_t BlockBytes() const { return LayerElements() * 2 * n_layers * element_bytes; }
  static constexpr int kBlockTokens = kernels::KvLayout::kBlockTokens;
};

// Fixed set of KV cache blocks shared by all sequences of one attention-service. Hands out ids; the
// storage is the backend's. Threads: safe.
class KvBlockPool {
 public:
  // As many blocks as `memory_bytes` holds; kInvalidArgument if that is none, or more memory than
  // there is where the blocks are kept.
  static absl::StatusOr<std::unique_ptr<KvBlockPool>> Create(const KvShape& shape,
                                                             size_t memory_bytes,
                                                             size_t machine_bytes = MachineBytes());
  // Of this machine's main memory.
  static size_t MachineBytes();

  // All `count` blocks or none: kResourceExhausted, with nothing taken.
  absl::StatusOr<std::vector<BlockId>> Acquire(int count);
  void Release(const std::vector<BlockId>& blocks);

  int n_blocks() const { return n_blocks_; }
  int n_free() const;
  const KvShape& shape() const { return shape_; }

 private:
  KvBlockPool(const KvShape& shape, int n_blocks);

  const KvShape shape_;
  const int n_blocks_;
  mutable absl::Mutex mu_;
  std::vector<BlockId> free_ ABSL_GUARDED_BY(mu_);  // taken from the back
};

}  // namespace gatefold
