#include "gatefold/cuda/pack_weights.h"

#include <cuda_bf16.h>

namespace gatefold::cuda {
namespace {

// Of the tile with output `out` and inputs of `block`.
__device__ inline int64_t TileOffset(const TileShape& shape, int64_t out, int64_t block, int matrix) {
  const int64_t tile = out / kTileRows;
  const int64_t pair = shape.two_matrices ? tile : tile / 2;
  const int64_t half = shape.two_matrices ? matrix : tile % 2;
  return ((pair * shape.n_in_blocks() + block) * 2 + half) * TileBytes(shape.format);
}

// One thread moves up to 8 inputs of one output: a 16-byte chunk of its tile.
__global__ void PackKernel(TileShape shape, const uint16_t* rows, int64_t first_out, int64_t n_rows,
                           int matrix, char* weights) {
  const int64_t chunks = (shape.n_in + 7) / 8;
  const int64_t index = static_cast<int64_t>(blockIdx.x) * blockDim.x + threadIdx.x;
  if (index >= n_rows * chunks) return;
  const int64_t row = index / chunks;
  const int input = static_cast<int>(index % chunks) * 8;
  const int64_t out = first_out + row;

  alignas(16) uint16_t chunk[8];
  const uint16_t* from = rows + row * shape.n_in + input;
  for (int i = 0; i < 8; ++i) chunk[i] = input + i < shape.n_in ? from[i] : uint16_t{0};
  char* to = weights + TileOffset(shape, out, input / kTileInputs, matrix) +
             SwizzledOffset(out % kTileRows, input % kTileInputs);
  *reinterpret_cast<uint4*>(to) = *reinterpret_cast<const uint4*>(chunk);
}

struct Quantised {
  __nv_bfloat16 scale;
  int8_t q[kQuantGroup];
};

// One group of inputs of one output, of which there are `n`. Every operation is rounded as written, so
// that a host does the same.
__device__ Quantised Quantise(WeightFormat format, const __nv_bfloat16* from, int n) {
  float x[kQuantGroup];
  float extreme = 0;  // the first of the greatest magnitude
#pragma unroll
  for (int i = 0; i < kQuantGroup; ++i) {
    x[i] = i < n ? __bfloat162float(from[i]) : 0.0f;
    if (fabsf(x[i]) > fabsf(extreme)) extreme = x[i];
  }
  const bool int8 = format == WeightFormat::kInt8;
  Quantised to;
  to.scale = __float2bfloat16_rn(int8 ? __fdiv_rn(fabsf(extreme), 127.0f) : __fdiv_rn(extreme, -8.0f));
  const float scale = __bfloat162float(to.scale);
  const float least = int8 ? -127.0f : -8.0f, most = int8 ? 127.0f : 7.0f;
#pragma unroll
  for (int i = 0; i < kQuantGroup; ++i) {
    const float q = scale == 0.0f ? 0.0f : rintf(__fdiv_rn(x[i], scale));
    to.q[i] = static_cast<int8_t>(fminf(fmaxf(q, least), most));
  }
  return to;
}

// One thread makes one group of inputs of two outputs, 8 apart, as quantised_tile.cuh has them: no two
// threads write one word. `n_rows` rows from output first_out on, a multiple of 16.
__global__ void QuantiseKernel(TileShape shape, const __nv_bfloat16* rows, int64_t first_out,
                               int64_t n_rows, int matrix, char* weights) {
  const int64_t groups = (shape.n_in + kQuantGroup - 1) / kQuantGroup;
  const int64_t pairs = (n_rows + 15) / 16 * 8;
  const int64_t index = static_cast<int64_t>(blockIdx.x) * blockDim.x + threadIdx.x;
  if (index >= pairs * groups) return;
  const int64_t input = index % groups * kQuantGroup;
  const int64_t row = index / groups / 8 * 16 + index / groups % 8;
  const int n_inputs = static_cast<int>(min(int64_t{kQuantGroup}, shape.n_in - input));
  Quantised of[2];
  for (int i = 0; i < 2; ++i) {
    const int64_t at = row + 8 * i;
    of[i] = Quantise(shape.format, rows + at * shape.n_in + input, at < n_rows ? n_inputs : 0);
  }

  const int64_t out = first_out + row;
  char* tile = weights + TileOffset(shape, out, input / kTileInputs, matrix);
  const int group = static_cast<int>(input % kTileInputs) / kQuantGroup;
  const int pair = static_cast<int>(out % kTileRows) / 16 * 8 + static_cast<int>(out % 8);
  auto* scales = reinterpret_cast<__nv_bfloat16*>(tile + TileBytes(shape.format) - kTileScaleBytes);
  scales[4 * pair + 2 * group] = of[0].scale;
  scales[4 * pair + 2 * group + 1] = of[1].scale;
  auto* words = reinterpret_cast<uint32_t*>(tile);
  for (int lane = 0; lane < 4; ++lane) {
    const int thread = 4 * pair + lane;
    for (int k = 0; k < 2; ++k) {  // 16 inputs each
      uint32_t bits[4][2];         // of a[k][j], first and second
      for (int j = 0; j < 4; ++j) {
        const int8_t* q = of[j % 2].q + 16 * k + 2 * lane + 8 * (j / 2);
        bits[j][0] = static_cast<uint32_t>(q[0]);
        bits[j][1] = static_cast<uint32_t>(q[1]);
      }
      if (shape.format == WeightFormat::kInt8) {
        for (int j = 0; j < 2; ++j) {
          const uint32_t(&even)[2] = bits[2 * j];
          const uint32_t(&odd)[2] = bits[2 * j + 1];
          words[(128 * group + thread) * 4 + 2 * k + j] = (even[0] & 255) | (odd[0] & 255) << 8 |
                                                          (even[1] & 255) << 16 | (odd[1] & 255) << 24;
        }
      } else {
        uint32_t word = 0;
        for (int j = 0; j < 4; ++j) {
          for (int i = 0; i < 2; ++i) word |= ((bits[j][i] + 8) & 15) << (4 * j + 16 * i);
        }
        words[thread * 4 + 2 * group + k] = word;
      }
    }
  }
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
  if (shape.format != WeightFormat::kBF16) {
    if (first_out % kQuantisedRowsAlign != 0) return cudaErrorInvalidValue;
    const int64_t n = (n_rows + 15) / 16 * 8 * ((shape.n_in + kQuantGroup - 1) / kQuantGroup);
    QuantiseKernel<<<static_cast<unsigned>((n + kThreads - 1) / kThreads), kThreads, 0, stream>>>(
        shape, static_cast<const __nv_bfloat16*>(rows), first_out, n_rows, matrix,
        static_cast<char*>(weights));
    return cudaGetLastError();
  }
  const int64_t n = n_rows * ((shape.n_in + 7) / 8);
  PackKernel<<<static_cast<unsigned>((n + kThreads - 1) / kThreads), kThreads, 0, stream>>>(
      shape, static_cast<const uint16_t*>(rows), first_out, n_rows, matrix,
      static_cast<char*>(weights));
  return cudaGetLastError();
}

}  // namespace gatefold::cuda
