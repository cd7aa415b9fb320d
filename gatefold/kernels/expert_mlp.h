#pragma once

#include <cstdint>
#include <vector>

#include "absl/types/span.h"
#include "gatefold/base/thread_pool.h"
#include "gatefold/kernels/packed_matrix.h"
#include "gatefold/tensor/buffer.h"
#include "gatefold/tensor/tensor_view.h"

namespace gatefold {

// One expert, laid out for the kernels: y = w2 (silu(w1 x + b1) * (w3 x + b3)) + b2, with
// w1, w3: [f, d_model] and w2: [d_model, f]. A slice of a dense MLP is an expert like any other.
class ExpertWeights {
 public:
  struct Views {
    MatrixView w1, w3, w2;
    TensorView b1, b3, b2;  // [f], [f], [d_model]; data null: none
  };
  // Copies, and quantises if `kind` says so: the matrices, not the biases. All three matrices are
  // of one type. `threads` may be null.
  ExpertWeights(const Views& views, ThreadPool* threads, WeightKind kind = WeightKind::kCheckpoint);

  // w1 and w3 by turns: panel 2i holds outputs 4i to 4i + 3 of w1, panel 2i + 1 those of w3.
  const PackedMatrix& w13() const { return w13_; }
  const PackedMatrix& w2() const { return w2_; }
  const float* b1() const { return b1_.as<float>(); }  // null: none
  const float* b3() const { return b3_.as<float>(); }
  const float* b2() const { return b2_.as<float>(); }
  int64_t d_model() const { return w2_.n_out(); }
  int64_t d_ff() const { return w2_.n_in(); }
  size_t size_bytes() const;

  // What size_bytes() of such an expert is. `n_biases`: values of all its biases together.
  static size_t SizeBytes(DType dtype, int64_t d_model, int64_t d_ff, int64_t n_biases,
                          WeightKind kind);

 private:
  // w1 and w3 begin a panel each time.
  static int64_t W13Outputs(int64_t d_ff) {
    return (d_ff + PackedMatrix::kPanel - 1) / PackedMatrix::kPanel * PackedMatrix::kPanel * 2;
  }

  PackedMatrix w13_, w2_;
  Buffer b1_, b3_, b2_;
};

namespace kernels {

// Rows that visit one expert: input row rows[i] gives output row slots[i].
struct ExpertGroup {
  const ExpertWeights* expert = nullptr;
  absl::Span<const int32_t> rows;
  absl::Span<const int32_t> slots;
};

// Computes all groups in two loops over the threads, whatever their number and sizes: a decode step
// of one row and a prefill of hundreds take the same way. All experts have the same d_model.
// x: [n_rows, d_model]. y: [n slots, d_model].
void ExpertMlp(absl::Span<const ExpertGroup> groups, const float* x, int64_t n_rows, float* y,
               ThreadPool* threads);

}  // namespace kernels

}  // namespace gatefold
