#include "gatefold/kernels/packed_matrix.h"

#include <algorithm>
#include <cstring>

#include "gatefold/base/check.h"
#include "gatefold/kernels/to_floats.h"

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

static_assert(kLine == kQuantGroup);

// `to`: the line of one output.
void PackInt8(const int8_t* q, char* to) {
  for (int j = 0; j < kLine / 2; ++j) {
    to[j] = static_cast<char>(q[2 * j]);
    to[kLine / 2 + j] = static_cast<char>(q[2 * j + 1]);
  }
}

// `to`: byte p of the panel's four lines, where p is the output.
void PackInt4(const int8_t* q, char* to) {
  for (int j = 0; j < kLine / 2; ++j) {
    to[PackedMatrix::kPanel * j] = static_cast<char>((q[2 * j] & 15) | (q[2 * j + 1] & 15) << 4);
  }
}

}  // namespace

PackedMatrix::PackedMatrix(DType dtype, int64_t n_out, int64_t n_in, WeightKind kind)
    : dtype_(dtype), kind_(kind), n_out_(n_out), n_in_(n_in) {
  buffer_ = Buffer(n_panels() * PanelBytes());
}

PackedMatrix::PackedMatrix(const MatrixView& weights, ThreadPool* threads, WeightKind kind)
    : PackedMatrix(weights.dtype, weights.n_rows, weights.n_cols, kind) {
  Fill(0, weights, threads);
}

void PackedMatrix::QuantiseRow(const char* from, int64_t out) {
  static_assert(kPanel == 4);  // bytes of a word
  char* panel = buffer_.as<char>() + out / kPanel * PanelBytes();
  const int64_t p = out % kPanel;
  const size_t line_bytes = WeightBytes();
  for (int64_t line = 0; line < n_lines(); ++line) {
    const int64_t first = line * kLine;
    float x[kLine] = {};
    ReadFloats(dtype_, from + first * DTypeBytes(dtype_), std::min<int64_t>(kLine, n_in_ - first),
               x);
    const bool int8 = kind_ == WeightKind::kInt8;
    const QuantisedGroup group = int8 ? Quantise<8>(x) : Quantise<4>(x);
    std::memcpy(panel + (line * kPanel + p) * 2, &group.scale, 2);
    char* lines = panel + ScaleBytes() + line * kPanel * line_bytes;
    if (int8) {
      PackInt8(group.q, lines + p * line_bytes);
    } else {
      PackInt4(group.q, lines + p);
    }
  }
}

void PackedMatrix::PackRow(const char* from, int64_t out) {
  if (kind_ != WeightKind::kCheckpoint) return QuantiseRow(from, out);
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
  GF_CHECK(out >= 0 && out < n_out_ && kind_ == WeightKind::kCheckpoint);
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
