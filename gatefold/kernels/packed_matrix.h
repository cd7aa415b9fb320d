#pragma once

#include <cstdint>

#include "gatefold/base/thread_pool.h"
#include "gatefold/tensor/buffer.h"
#include "gatefold/tensor/quantise.h"
#include "gatefold/tensor/tensor_view.h"

namespace gatefold {

// A weight matrix [n_out, n_in] in the order in which the kernels read it: panels of 4 outputs, and
// within a panel, for every 32 inputs, 4 *lines* of 32 weights, one per output. So one output's
// weights for 32 inputs are one cache line in bfloat16, and a whole panel is read front to back.
// Inputs and outputs are padded with zeros to 32 and 4.
//
// A line serves the 16 lanes of the virtual vector twice: lane j first takes input 2j of the 32,
// then input 2j + 1 (see vector_kernels.h). bfloat16 lines keep the checkpoint's order, in which
// the two are the halves of one 32-bit word; float16, float32 and int8 lines hold the 16 even
// inputs, then the 16 odd ones.
//
// Quantised, a line is one group (quantise.h), and a panel begins with the bfloat16 scales of its
// lines, 4 by 4, padded to 64 bytes. The 4 int4 lines of a panel lie together: byte p of the word j
// of 16 has the inputs that lane j takes of output p, the first in the low half.
class PackedMatrix {
 public:
  static constexpr int kPanel = 4;
  static constexpr int kLine = 32;

  PackedMatrix() = default;
  // All zeros, to be filled. `dtype`: of what fills it.
  PackedMatrix(DType dtype, int64_t n_out, int64_t n_in, WeightKind kind = WeightKind::kCheckpoint);
  // Filled from a view; `threads` may be null.
  PackedMatrix(const MatrixView& weights, ThreadPool* threads,
               WeightKind kind = WeightKind::kCheckpoint);

  // Copies the rows of `weights` to outputs [first_out, first_out + weights.n_rows).
  void Fill(int64_t first_out, const MatrixView& weights, ThreadPool* threads);
  // Copies the rows of `weights`, 4 by 4, to panels first_panel, first_panel + 2, ...: two matrices
  // of which a kernel reads the same outputs together, as one stream.
  void FillEveryOtherPanel(int64_t first_panel, const MatrixView& weights, ThreadPool* threads);

  // The n_in weights of one output as they were filled, bit for bit; not if they are quantised.
  void CopyRow(int64_t out, void* to) const;
  // Of row `row` of a matrix that was filled into every other panel from `first_panel` on: the
  // output.
  static int64_t RowInEveryOtherPanel(int64_t first_panel, int64_t row) {
    return (first_panel + row / kPanel * 2) * kPanel + row % kPanel;
  }

  DType dtype() const { return dtype_; }
  WeightKind kind() const { return kind_; }
  int64_t n_out() const { return n_out_; }
  int64_t n_in() const { return n_in_; }
  int64_t n_panels() const { return Panels(n_out_); }
  int64_t n_lines() const { return Lines(n_in_); }  // per output
  size_t PanelBytes() const { return PanelBytes(dtype_, n_in_, kind_); }
  const char* Panel(int64_t panel) const { return buffer_.as<char>() + panel * PanelBytes(); }
  size_t size_bytes() const { return buffer_.size_bytes(); }

  // What size_bytes() of such a matrix is.
  static size_t SizeBytes(DType dtype, int64_t n_out, int64_t n_in, WeightKind kind) {
    return Panels(n_out) * PanelBytes(dtype, n_in, kind);
  }

 private:
  static int64_t Panels(int64_t n_out) { return (n_out + kPanel - 1) / kPanel; }
  static int64_t Lines(int64_t n_in) { return (n_in + kLine - 1) / kLine; }
  // Of a panel's scales, of the weights of a line, and of a panel.
  static size_t ScaleBytes(int64_t n_in, WeightKind kind) {
    return kind == WeightKind::kCheckpoint ? 0 : (Lines(n_in) * kPanel * 2 + 63) / 64 * 64;
  }
  static size_t WeightBytes(DType dtype, WeightKind kind) {
    return kind == WeightKind::kCheckpoint ? kLine * DTypeBytes(dtype)
           : kind == WeightKind::kInt8     ? kLine
                                           : kLine / 2;
  }
  static size_t PanelBytes(DType dtype, int64_t n_in, WeightKind kind) {
    return ScaleBytes(n_in, kind) + Lines(n_in) * kPanel * WeightBytes(dtype, kind);
  }
  size_t ScaleBytes() const { return ScaleBytes(n_in_, kind_); }
  size_t WeightBytes() const { return WeightBytes(dtype_, kind_); }
  void QuantiseRow(const char* from, int64_t out);
  // `from`: n_in weights, aligned or not.
  void PackRow(const char* from, int64_t out);

  DType dtype_ = DType::kF32;
  WeightKind kind_ = WeightKind::kCheckpoint;
  int64_t n_out_ = 0;
  int64_t n_in_ = 0;
  Buffer buffer_;
};

}  // namespace gatefold
