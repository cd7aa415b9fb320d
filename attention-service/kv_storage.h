#pragma once

#include "attention-service/kv_block_pool.h"
#include "gatefold/tensor/buffer.h"

namespace gatefold {

// Keys and values of all KV blocks in host memory, as float32. Memory is touched, and so paid for,
// when a block is first written.
class KvStorage {
 public:
  KvStorage(const KvShape& shape, int n_blocks)
      : shape_(shape), n_blocks_(n_blocks), storage_(shape.BlockBytes() * n_blocks) {}

  const KvShape& shape() const { return shape_; }

  // Keys (values) of one layer: block b starts b * shape().LayerElements() floats in.
  float* Keys(int layer) { return storage_.as<float>() + 2 * layer * LayerStride(); }
  float* Values(int layer) { return storage_.as<float>() + (2 * layer + 1) * LayerStride(); }

 private:
  size_t LayerStride() const { return shape_.LayerElements() * n_blocks_; }

  const KvShape shape_;
  const int n_blocks_;
  Buffer storage_;
};

}  // namespace gatefold
