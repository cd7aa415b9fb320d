#pragma once

#include <cstddef>
#include <cstdint>

#ifdef __CUDACC__
#define GATEFOLD_HOST_DEVICE __host__ __device__
#else
#define GATEFOLD_HOST_DEVICE
#endif

namespace gatefold::cuda {

// How matrices lie in device memory for the tensor cores. The unit is a *tile*: 64 rows of 64 inputs. In
// bfloat16 a row is 128 bytes, whose eight 16-byte chunks are permuted (chunk c of row r is stored as chunk
// c ^ (r % 8)): what shared memory wants so that eight rows are read without bank conflicts. A tile is
// copied into shared memory as it lies, by one instruction where the device has bulk copies.
inline constexpr int kTileRows = 64;
inline constexpr int kTileInputs = 64;  // along the sum

// How the weights of a tile are kept. Quantised ones have a bfloat16 scale d per 32 inputs of an
// output, by the formula of gatefold/tensor/quantise.h, and lie as quantised_tile.cuh says; what is multiplied is bfloat16(q d), rounded to nearest.
enum class WeightFormat : int32_t {
  kBF16,
  kInt8,  // q from -127 to 127, d = bfloat16(greatest magnitude / 127)
  kInt4,  // q from -8 to 7, d = bfloat16(the value of the greatest magnitude / -8)
};
inline constexpr int kQuantGroup = 32;
inline constexpr int kTileScaleBytes = kTileRows * kTileInputs / kQuantGroup * 2;

GATEFOLD_HOST_DEVICE constexpr int TileBytes(WeightFormat format) {
  return format == WeightFormat::kBF16   ? kTileRows * kTileInputs * 2
         : format == WeightFormat::kInt8 ? kTileRows * kTileInputs + kTileScaleBytes
                                         : kTileRows * kTileInputs / 2 + kTileScaleBytes;
}

// Sums are padded with zeros to two tiles, rows of activations to one permutation.
inline constexpr int kInputsAlign = 2 * kTileInputs;
inline constexpr int kRowsAlign = 8;

GATEFOLD_HOST_DEVICE constexpr int64_t RoundUp(int64_t n, int64_t to) { return (n + to - 1) / to * to; }

// Byte offset of element (row, input) inside a run of rows of one 64-input block, 128 bytes a row.
GATEFOLD_HOST_DEVICE constexpr int64_t SwizzledOffset(int64_t row, int input) {
  return row * 128 + (((input / 8) ^ (row % 8)) * 16) + (input % 8) * 2;
}

// The same inside activations of one group of rows, see below. n_rounded: its rows, rounded up.
GATEFOLD_HOST_DEVICE constexpr int64_t ActivationOffset(int64_t row, int64_t input, int64_t n_rounded) {
  return input / kTileInputs * n_rounded * (kTileInputs * 2) +
         SwizzledOffset(row, static_cast<int>(input % kTileInputs));
}

// A weight matrix [n_out, n_in] as tiles, and an activation matrix as runs of rows.
//
// Weights: [n_tiles, n_in_blocks, tile]. A tile holds outputs 64 i to 64 i + 63 of one matrix, or
// outputs 32 i to 32 i + 31 of two matrices (w1, w3) of which a kernel needs the same outputs at once:
// tile row 16 w + r has output 32 i + 8 w + r of the first, tile row 16 w + 8 + r that of the second
// (w < 4, r < 8), so that one thread has the sums of both.
// Activations of one group of rows: [n_in_blocks, rows, 64 inputs], rows rounded up to kRowsAlign.
struct TileShape {
  int64_t n_out = 0;  // of one matrix
  int64_t n_in = 0;
  bool two_matrices = false;
  WeightFormat format = WeightFormat::kBF16;

  GATEFOLD_HOST_DEVICE constexpr int n_in_blocks() const {
    return static_cast<int>(RoundUp(n_in, kInputsAlign) / kTileInputs);
  }
  // Outputs of a tile.
  GATEFOLD_HOST_DEVICE constexpr int tile_outs() const { return two_matrices ? kTileRows / 2 : kTileRows; }
  // Two matrices make activations of a following sum, so their outputs are padded as its inputs are.
  GATEFOLD_HOST_DEVICE constexpr int n_tiles() const {
    return static_cast<int>(RoundUp(n_out, two_matrices ? kInputsAlign : kTileRows) / tile_outs());
  }
  GATEFOLD_HOST_DEVICE constexpr size_t weight_bytes() const {
    return static_cast<size_t>(n_tiles()) * n_in_blocks() * TileBytes(format);
  }
};

// Bytes of activations [n_rows, n_in] of one group.
constexpr size_t ActivationBytes(int64_t n_rows, int64_t n_in) {
  return static_cast<size_t>(RoundUp(n_rows, kRowsAlign)) * RoundUp(n_in, kInputsAlign) * 2;
}

}  // namespace gatefold::cuda
