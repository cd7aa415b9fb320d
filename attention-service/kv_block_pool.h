#pragma once

#include <cstdint>
#include <memory>
#include <vector>

#include "absl/base/thread_annotations.h"
#include "absl/status/statusor.h"
#include "absl/synchronization/mutex.h"
#include "gatefold/kernels/attention.h"
#include "gatefold/tensor/buffer.h"

namespace gatefold {

using BlockId = int32_t;

// What a KV block holds: keys and values of 16 positions in every layer.
struct KvShape {
  int n_layers = 0;
  kernels::KvLayout layout;

  // Floats of the keys (or of the values) of one block in one layer.
  size_t LayerFloats() const { return static_cast<size_t>(layout.BlockFloats()); }
  size_t BlockBytes() const { return LayerFloats() * 2 * n_layers * sizeof(float); }
  static constexpr int kBlockTokens = kernels::KvLayout::kBlockTokens;
};

// Fixed set of KV cache blocks shared by all sequences of one attention-service. Owns the storage
// and hands out ids. Memory is touched, and so paid for, when a block is first written.
// Threads: safe.
class KvBlockPool {
 public:
  // As many blocks as `memory_bytes` holds; kInvalidArgument if that is none, or more memory than the
  // machine has.
  static absl::StatusOr<std::unique_ptr<KvBlockPool>> Create(const KvShape& shape,
                                                             size_t memory_bytes);

  // All `count` blocks or none: kResourceExhausted, with nothing taken.
  absl::StatusOr<std::vector<BlockId>> Acquire(int count);
  void Release(const std::vector<BlockId>& blocks);

  int n_blocks() const { return n_blocks_; }
  int n_free() const;
  const KvShape& shape() const { return shape_; }

  // Keys (values) of one layer: block b starts b * shape().LayerFloats() floats in.
  float* Keys(int layer) { return storage_.as<float>() + 2 * layer * LayerStride(); }
  float* Values(int layer) { return storage_.as<float>() + (2 * layer + 1) * LayerStride(); }

 private:
  KvBlockPool(const KvShape& shape, int n_blocks);
  size_t LayerStride() const { return shape_.LayerFloats() * n_blocks_; }

  const KvShape shape_;
  const int n_blocks_;
  Buffer storage_;
  mutable absl::Mutex mu_;
  std::vector<BlockId> free_ ABSL_GUARDED_BY(mu_);  // taken from the back
};

}  // namespace gatefold
