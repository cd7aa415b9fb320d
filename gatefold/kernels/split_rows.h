#pragma once

#include <cstdint>

#include "gatefold/base/thread_pool.h"
#include "gatefold/tensor/buffer.h"

namespace gatefold::kernels {

// Rows in the order the dot products read them (KernelTable::split_even_odd), in memory that is
// reused from call to call.
class SplitRows {
 public:
  // x: [n_rows, n]. Valid until the next call.
  void Assign(const float* x, int64_t n_rows, int64_t n, ThreadPool* threads);
  // Room for n_rows rows of n floats, not initialised, to be written by row.
  void Reserve(int64_t n_rows, int64_t n);

  float* row(int64_t r) { return buffer_.as<float>() + r * stride_; }
  const float* row(int64_t r) const { return buffer_.as<float>() + r * stride_; }
  int64_t n_lines() const { return stride_ / 32; }

 private:
  Buffer buffer_;
  int64_t stride_ = 0;
};

}  // namespace gatefold::kernels
