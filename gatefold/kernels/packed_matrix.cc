#include "gatefold/kernels/packed_matrix.h"

#include <algorithm>
#include <cstring>

#include "gatefold/base/check.h"

namespace gatefold {
namespace {

constexpr int kLine = PackedMatrix::kLine;
constexpr int kRowsPerChunk = 64;

// `count` weights (at most a line of them), padded with zeros already.
template <typename T>
void PackLine(const char* from, int64_t count, bool split_even_odd, char* to) {
  if (!split_even_odd) {
    std::memcpy(to, from, count * sizeof(T));
    return;
  }
  T values[kLine] = {};
  std::memcpy(values, from, count * sizeof(T));
  T packed[kLine];
  for (int j = 0; j < kLine / 2; ++j) {
    packed[j] = values[2 * j];
    packed[kLine / 2 + j] = values[2 * j + 1];
  }
  std::memcpy(to, packed, sizeof packed);
}

}  // namespace

PackedMatrix::PackedMatrix(DType dtype, int64_t n_out, int64_t n_in)
    : dtype_(dtype), n_out_(n_out), n_in_(n_in) {
  buffer_ = Buffer(n_panels() * PanelBytes());
}

PackedMatrix::PackedMatrix(const MatrixView& weights, ThreadPool* threads)
    : PackedMatrix(weights.dtype, weights.n_rows, weights.n_cols) {
  Fill(0, weights, threads);
}

void PackedMatrix::PackRow(const char* from, int64_t out) {
  const size_t element = DTypeBytes(dtype_);
  const size_t line_bytes = kLine * element;
  char* to = buffer_.as<char>() + out / kPanel * PanelBytes() + out % kPanel * line_bytes;
  for (int64_t in = 0; in < n_in_; in += kLine) {
    const int64_t count = std::min<int64_t>(kLine, n_in_ - in);
    if (dtype_ == DType::kF32) {
      PackLine<float>(from + in * element, count, true, to);
    } else {
      PackLine<uint16_t>(from + in * element, count, dtype_ == DType::kF16, to);
    }
    to += kPanel * line_bytes;
  }
}

void PackedMatrix::Fill(int64_t first_out, const MatrixView& weights, ThreadPool* threads) {
  GF_CHECK(weights.dtype == dtype_ && weights.n_cols == n_in_ && first_out >= 0 &&
           first_out + weights.n_rows <= n_out_);
  ParallelFor(threads, weights.n_rows, kRowsPerChunk, [&](int64_t begin, int64_t end) {
    for (int64_t row = begin; row < end; ++row) {
      PackRow(static_cast<const char*>(weights.Rows(row, 1).data), first_out + row);
    }
  });
}

void PackedMatrix::FillEveryOtherPanel(int64_t first_panel, const MatrixView& weights,
                                       ThreadPool* threads) {
  const int64_t last_row = weights.n_rows - 1;
  GF_CHECK(weights.dtype == dtype_ && weights.n_cols == n_in_ && first_panel >= 0 &&
           first_panel + last_row / kPanel * 2 < n_panels());
  ParallelFor(threads, weights.n_rows, kRowsPerChunk, [&](int64_t begin, int64_t end) {
    for (int64_t row = begin; row < end; ++row) {
      const int64_t panel = first_panel + row / kPanel * 2;
      PackRow(static_cast<const char*>(weights.Rows(row, 1).data), panel * kPanel + row % kPanel);
    }
  });
}

}  // namespace gatefold
