#include "gatefold/cuda/pack_weights.h"

namespace gatefold::cuda {
namespace {

// One thread moves up to 8 inputs of one output: a 16-byte chunk of its tile.
__global__ void PackKernel(TileShape shape, const uint16_t* rows, int64_t first_out, int64_t n_rows,
                           int matrix, char* weights) {
  const int64_t chunks = (shape.n_in + 7) / 8;
  const int64_t index = static_cast<int64_t>(blockIdx.x) * blockDim.x + threadIdx.x;
  if (index >= n_rows * chunks) return;
  const int64_t row = index / chunks;
  const int input = static_cast<int>(index % chunks) * 8;
  const int64_t out = first_out + row;
  const int64_t tile = out / kTileRows;
  const int64_t pair = shape.two_matrices ? tile : tile / 2;
  const int64_t half = shape.two_matrices ? matrix : tile % 2;

  alignas(16) uint16_t chunk[8];
  const uint16_t* from = rows + row * shape.n_in + input;
  for (int i = 0; i < 8; ++i) chunk[i] = input + i < shape.n_in ? from[i] : uint16_t{0};
  char* to = weights + ((pair * shape.n_in_blocks() + input / kTileInputs) * 2 + half) * kTileBytes +
             SwizzledOffset(out % kTileRows, input % kTileInputs);
  *reinterpret_cast<uint4*>(to) = *reinterpret_cast<const uint4*>(chunk);
}

}  // namespace

cudaError_t PackWeights(const TileShape& shape, const void* rows, int64_t first_out, int64_t n_rows,
                        int matrix, void* weights, cudaStream_t stream) {
  if (n_rows <= 0) return cudaSuccess;
  if (first_out < 0 || first_out + n_rows > shape.n_out || matrix < 0 ||
      matrix > (shape.two_matrices ? 1 : 0)) {
    return cudaErrorInvalidValue;
  }
  constexpr int kThreads = 256;
  const int64_t n = n_rows * ((shape.n_in + 7) / 8);
  PackKernel<<<static_cast<unsigned>((n + kThreads - 1) / kThreads), kThreads, 0, stream>>>(
      shape, static_cast<const uint16_t*>(rows), first_out, n_rows, matrix,
      static_cast<char*>(weights));
  return cudaGetLastError();
}

}  // namespace gatefold::cuda
