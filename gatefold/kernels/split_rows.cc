#include "gatefold/kernels/split_rows.h"

#include "gatefold/kernels/isa.h"

namespace gatefold::kernels {

void SplitRows::Reserve(int64_t n_rows, int64_t n) {
  stride_ = (n + 31) / 32 * 32;
  const size_t bytes = n_rows * stride_ * sizeof(float);
  if (bytes > buffer_.size_bytes()) buffer_ = Buffer(bytes);
}

void SplitRows::Assign(const float* x, int64_t n_rows, int64_t n, ThreadPool* threads) {
  Reserve(n_rows, n);
  const auto split = Kernels().split_even_odd;
  // A few rows are split faster than a second thread is told of it.
  ParallelFor(n_rows >= 32 ? threads : nullptr, n_rows, 8, [&](int64_t begin, int64_t end) {
    for (int64_t r = begin; r < end; ++r) split(x + r * n, n, row(r));
  });
}

}  // namespace gatefold::kernels
