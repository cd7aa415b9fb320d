#include "gatefold/cuda/pack_weights.h"

#include <cuda_bf16.h>

#include "gatefold/cuda/launch.h"

namespace gatefold::cuda {
namespace {

// Where an output of a matrix lies.
struct TilePlace {
  int64_t offset;  // of the tile with inputs of `block`
  int row;         // within the tile
};

__device__ inline TilePlace Place(const TileShape& shape, int64_t out, int64_t block, int matrix) {
  const int64_t tile = out / shape.tile_outs();
  const int within = static_cast<int>(out % shape.tile_outs());
  return {(tile * shape.n_in_blocks() + block) * TileBytes(shape.format),
          shape.two_matrices ? within / 8 * 16 + matrix * 8 + within % 8 : within};
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
  const TilePlace place = Place(shape, out, input / kTileInputs, matrix);
  char* to = weights + place.offset + SwizzledOffset(place.row, input % kTileInputs);
  *reinterpret_cast<uint4*>(to) = *reinterpret_cast<const uint4*>(chunk);
}

struct Quantised {
  __nv_bfloat16 scale;
  int8_t q[kQuantGroup];
};

// One group of inputs of one output, of which there are `n`, as gatefold/tensor/quantise.h has it: every
// operation is rounded as written there, and a value that is infinite or NaN makes the scale NaN.
__device__ Quantised Quantise(WeightFormat format, const __nv_bfloat16* from, int n) {
  float x[kQuantGroup];
  float extreme = 0;  // the first of the greatest magnitude
  bool broken = false;
#pragma unroll
  for (int i = 0; i < kQuantGroup; ++i) {
    x[i] = i < n ? __bfloat162float(from[i]) : 0.0f;
    if (fabsf(x[i]) > fabsf(extreme)) extreme = x[i];
    broken |= !isfinite(x[i]);
  }
  const bool int8 = format == WeightFormat::kInt8;
  Quantised to;
  to.scale = __float2bfloat16_rn(int8 ? __fdiv_rn(fabsf(extreme), 127.0f) : __fdiv_rn(extreme, -8.0f));
  if (broken) to.scale = __ushort_as_bfloat16(0x7fc0);
  const float scale = __bfloat162float(to.scale);
  const float least = int8 ? -127.0f : -8.0f, most = int8 ? 127.0f : 7.0f;
#pragma unroll
  for (int i = 0; i < kQuantGroup; ++i) {
    const float q = scale == 0.0f || broken ? 0.0f : rintf(__fdiv_rn(x[i], scale));
    to.q[i] = static_cast<int8_t>(fminf(fmaxf(q, least), most));
  }
  return to;
}

// What a tile row adds to a word (quantised_tile.cuh) that it shares with the row 8 further on; `half`: 0, or
// 1 for the latter. q: from the word's first input on.
__device__ inline uint32_t BitsOfInt8(const int8_t* q, int half) {
  return (static_cast<uint32_t>(q[0]) & 255) << (8 * half) |
         (static_cast<uint32_t>(q[1]) & 255) << (8 * half + 16);
}
__device__ inline uint32_t BitsOfInt4(const int8_t* q, int half) {
  uint32_t word = 0;
  for (int j = 0; j < 2; ++j) {  // inputs from 0 and from 8 on
    for (int i = 0; i < 2; ++i) {
      word |= (static_cast<uint32_t>(q[8 * j + i] + 8) & 15) << (4 * (2 * j + half) + 16 * i);
    }
  }
  return word;
}

// One thread makes one group of inputs of one output. Two tile rows share a word: each puts its bits there
// by OR, over zeros.
__global__ void QuantiseKernel(TileShape shape, const __nv_bfloat16* rows, int64_t first_out,
                               int64_t n_rows, int matrix, char* weights) {
  const int64_t groups = (shape.n_in + kQuantGroup - 1) / kQuantGroup;
  const int64_t index = static_cast<int64_t>(blockIdx.x) * blockDim.x + threadIdx.x;
  if (index >= n_rows * groups) return;
  const int64_t input = index % groups * kQuantGroup;
  const int64_t row = index / groups;
  const int n_inputs = static_cast<int>(min(int64_t{kQuantGroup}, shape.n_in - input));
  const Quantised of = Quantise(shape.format, rows + row * shape.n_in + input, n_inputs);

  const TilePlace place = Place(shape, first_out + row, input / kTileInputs, matrix);
  char* tile = weights + place.offset;
  const int group = static_cast<int>(input % kTileInputs) / kQuantGroup;
  const int half = place.row % 16 / 8;
  const int pair = place.row / 16 * 8 + place.row % 8;
  auto* scales = reinterpret_cast<__nv_bfloat16*>(tile + TileBytes(shape.format) - kTileScaleBytes);
  scales[4 * pair + 2 * group + half] = of.scale;
  auto* words = reinterpret_cast<uint32_t*>(tile);
  for (int lane = 0; lane < 4; ++lane) {
    const int thread = 4 * pair + lane;
    for (int k = 0; k < 2; ++k) {
      const int8_t* q = of.q + 16 * k + 2 * lane;
      if (shape.format == WeightFormat::kInt8) {
        uint32_t* to = words + (128 * group + thread) * 4 + 2 * k;
        atomicOr(to, BitsOfInt8(q, half));
        atomicOr(to + 1, BitsOfInt8(q + 8, half));
      } else {
        atomicOr(words + thread * 4 + 2 * group + k, BitsOfInt4(q, half));
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
    const int64_t n = n_rows * ((shape.n_in + kQuantGroup - 1) / kQuantGroup);
    return LaunchKernel(QuantiseKernel,
                        {.n_blocks = (n + kThreads - 1) / kThreads, .n_threads = kThreads}, stream,
                        shape, static_cast<const __nv_bfloat16*>(rows), first_out, n_rows, matrix,
                        static_cast<char*>(weights));
  }
  const int64_t n = n_rows * ((shape.n_in + 7) / 8);
  return LaunchKernel(PackKernel,
                      {.n_blocks = (n + kThreads - 1) / kThreads, .n_threads = kThreads}, stream, shape,
                      static_cast<const uint16_t*>(rows), first_out, n_rows, matrix,
                      static_cast<char*>(weights));
}

}  // namespace gatefold::cuda
