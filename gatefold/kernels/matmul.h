#pragma once

#include <cstdint>

#include "gatefold/base/thread_pool.h"
#include "gatefold/kernels/packed_matrix.h"

namespace gatefold::kernels {

// y[r, o] = sum over i of w[o, i] x[r, i], + bias[o] if there is a bias.
// x: [n_rows, n_in]. y: [n_rows, n_out]. Every y depends on its own row and output alone.
void MatMul(const PackedMatrix& w, const float* x, float* y, int64_t n_rows, ThreadPool* threads,
            const float* bias = nullptr);

}  // namespace gatefold::kernels
