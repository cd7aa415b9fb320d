#pragma once

#include <cuda_runtime.h>

#include "gatefold/cuda/tiles.h"

namespace gatefold::cuda {

// Brings outputs [first_out, first_out + n_rows) of a matrix into tiles, quantised where the shape says
// so: then once each.
//   rows     device, bfloat16 [n_rows, shape.n_in], as a checkpoint has them
//   matrix   0 or 1: which of two matrices (shape.two_matrices), else 0
//   weights  device, shape.weight_bytes(), zeroed before the first call: padding stays zero
// Asynchronous on `stream`; rows may be reused when it has got there.
cudaError_t PackWeights(const TileShape& shape, const void* rows, int64_t first_out, int64_t n_rows,
                        int matrix, void* weights, cudaStream_t stream);

}  // namespace gatefold::cuda
