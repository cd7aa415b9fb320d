#pragma once

#include <cstdint>
#include <vector>

#include "gatefold/tensor/dtype.h"

namespace gatefold {

// A borrowed, contiguous, row-major array in memory that somebody else owns (a mapped checkpoint,
// usually). `data` may be unaligned: checkpoints do not promise alignment.
struct TensorView {
  DType dtype = DType::kF32;
  std::vector<int64_t> shape;
  const void* data = nullptr;

  int64_t n_elements() const {
    int64_t n = 1;
    for (int64_t dim : shape) n *= dim;
    return n;
  }
  size_t size_bytes() const { return static_cast<size_t>(n_elements()) * DTypeBytes(dtype); }
};

// A borrowed matrix, row r starting `r * row_stride` elements after `data`: a whole tensor, or some
// rows or columns of one (a slice of a dense MLP). `data` may be unaligned.
struct MatrixView {
  DType dtype = DType::kF32;
  int64_t n_rows = 0;
  int64_t n_cols = 0;
  int64_t row_stride = 0;
  const void* data = nullptr;

  // Rows [begin, begin + count), all columns.
  MatrixView Rows(int64_t begin, int64_t count) const {
    MatrixView view = *this;
    view.n_rows = count;
    view.data = static_cast<const char*>(data) + begin * row_stride * DTypeBytes(dtype);
    return view;
  }
  // Columns [begin, begin + count), all rows.
  MatrixView Columns(int64_t begin, int64_t count) const {
    MatrixView view = *this;
    view.n_cols = count;
    view.data = static_cast<const char*>(data) + begin * DTypeBytes(dtype);
    return view;
  }
};

}  // namespace gatefold
