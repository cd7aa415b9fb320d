#pragma once

#include <cuda_runtime.h>

#include <cstddef>
#include <cstdint>

#include "gatefold/cuda/tiles.h"

namespace gatefold::cuda {

// A matrix of bfloat16 as a checkpoint has it. Host memory, possibly unaligned.
struct HostMatrix {
  const void* data = nullptr;  // row r starts r * row_stride elements in
  int64_t n_rows = 0;
  int64_t n_cols = 0;
  int64_t row_stride = 0;
};

// Brings weights from the host to the device, through 16 MiB of pinned memory and on a stream of
// its own, so that calls go on meanwhile. Host memory is free again when a method returns; what it
// sent is in its place after Finish(). Threads: one at a time.
class WeightUpload {
 public:
  static constexpr size_t kStagingBytes = size_t{16} << 20;

  WeightUpload() = default;
  ~WeightUpload();
  WeightUpload(const WeightUpload&) = delete;
  WeightUpload& operator=(const WeightUpload&) = delete;

  // Allocates what it needs; before everything else. Cheap when it was done before.
  cudaError_t Prepare();

  // Outputs [first_out, first_out + rows.n_rows) of matrix `matrix` of two, or 0, as tiles of
  // `shape`, whose padding was zeroed. cudaErrorInvalidValue for rows that do not fit the shape or
  // the staging.
  cudaError_t SendTiles(const HostMatrix& rows, const TileShape& shape, int64_t first_out,
                        int matrix, void* tiles);
  // The rows one after another, without gaps.
  cudaError_t SendRows(const HostMatrix& rows, void* to);
  cudaError_t SendFloats(const float* floats, int64_t n, float* to);
  cudaError_t Zero(void* memory, size_t bytes);
  // Waits for all of it.
  cudaError_t Finish();

 private:
  // Rows [first, first + n) into the pinned memory, when it is free.
  cudaError_t Stage(const HostMatrix& rows, int64_t first, int64_t n);

  char* host_ = nullptr;
  char* device_ = nullptr;
  cudaStream_t stream_ = nullptr;
};

}  // namespace gatefold::cuda
