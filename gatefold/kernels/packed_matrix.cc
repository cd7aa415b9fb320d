#include "gatefold/kernels/packed_matrix.h"

#include <algorithm>
#include <cstring>

#include "gatefold/base/check.h"

namespace gatefold {
namespace {

constexpr int kLine = PackedMatrix::kLine;
constexpr int kRowsPerChunk = 64;

// Even elements first, then the odd ones: the halves of each pair, seen as one word.
template <typename T, typename Pair>
void SplitLine(const char* from, char* to) {
  Pair pairs[kLine / 2];
  std::memcpy(pairs, from, sizeof pairs);
  T split[kLine];
  for (int j = 0; j < kLine / 2; ++j) {
    split[j] = static_cast<T>(pairs[j]);
    split[kLine / 2 + j] = static_cast<T>(pairs[j] >> (8 * sizeof(T)));
  }
  std::memcpy(to, split, sizeof split);
}

template <typename T, typename Pair>
void JoinLine(const char* from, char* to) {
  T split[kLine];
  std::memcpy(split, from, sizeof split);
  Pair pairs[kLine / 2];
  for (int j = 0; j < kLine / 2; ++j) {
    pairs[j] =
        static_cast<Pair>(split[j] | static_cast<Pair>(split[kLine / 2 + j]) << (8 * sizeof(T)));
  }
  std::memcpy(to, pairs, sizeof pairs);
}

// The order in which the kernels read a line of each type.
void PackLine(DType dtype, const char* from, char* to) {
  switch (dtype) {
    case DType::kF32:
      return SplitLine<uint32_t, uint64_t>(from, to);
    case DType::kF16:
      return SplitLine<uint16_t, uint32_t>(from, to);
    case DType::kBF16:
      std::memcpy(to, from, kLine * sizeof(uint16_t));
  }
}

// Back again.
void UnpackLine(DType dtype, const char* from, char* to) {
  switch (dtype) {
    case DType::kF32:
      return JoinLine<uint32_t, uint64_t>(from, to);
    case DType::kF16:
      return JoinLine<uint16_t, uint32_t>(from, to);
    case DType::kBF16:
      std::memcpy(to, from, kLine * sizeof(uint16_t));
  }
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
  const size_t line_bytes = kLine * DTypeBytes(dtype_);
  char* to = buffer_.as<char>() + out / kPanel * PanelBytes() + out % kPanel * line_bytes;
  for (int64_t in = 0; in + kLine <= n_in_; in += kLine) {
    PackLine(dtype_, from, to);
    from += line_bytes;
    to += kPanel * line_bytes;
  }
  if (n_in_ % kLine == 0) return;
  char padded[kLine * sizeof(float)] = {};
  std::memcpy(padded, from, n_in_ % kLine * DTypeBytes(dtype_));
  PackLine(dtype_, padded, to);
}

void PackedMatrix::CopyRow(int64_t out, void* to) const {
  GF_CHECK(out >= 0 && out < n_out_);
  const size_t line_bytes = kLine * DTypeBytes(dtype_);
  const char* from = Panel(out / kPanel) + out % kPanel * line_bytes;
  char* at = static_cast<char*>(to);
  for (int64_t in = 0; in + kLine <= n_in_; in += kLine) {
    UnpackLine(dtype_, from, at);
    from += kPanel * line_bytes;
    at += line_bytes;
  }
  if (n_in_ % kLine == 0) return;
  char padded[kLine * sizeof(float)];
  UnpackLine(dtype_, from, padded);
  std::memcpy(at, padded, n_in_ % kLine * DTypeBytes(dtype_));
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
      PackRow(static_cast<const char*>(weights.Rows(row, 1).data),
              RowInEveryOtherPanel(first_panel, row));
    }
  });
}

}  // namespace gatefold
