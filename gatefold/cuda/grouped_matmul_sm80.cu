#include <atomic>

#include "gatefold/cuda/cuda_macros.h"
#include "gatefold/cuda/grouped_matmul_plan.h"
#include "gatefold/cuda/grouped_matmul_unit.cuh"
#include "gatefold/cuda/launch.h"
#include "gatefold/cuda/quantised_tile.cuh"

namespace gatefold::cuda {
namespace {

// The same units as on Hopper, with what every device of compute capability 8.0 or more has: cp.async into
// a ring of stages, mma.sync m16n8k16 on four warps (or twice four) of 16 tile rows each.
template <WeightFormat kWeights, int kMostRows, Epilogue kEnd>
struct Shape {
  static constexpr WeightFormat kFormat = kWeights;
  static constexpr int kRows = kMostRows;
  static constexpr bool kWide = kRows > kNarrowUnitRows;
  static constexpr Epilogue kEpilogue = kEnd;
  static constexpr int kTileBytes = TileBytes(kFormat);
  static constexpr int kBlocks = kWide ? 1 : 2;          // input blocks of a stage
  static constexpr int kRowBytes = kRows * 128;          // activations of one input block
  static constexpr int kStageBytes = 2 * kTileBytes + kBlocks * kRowBytes;
  // What the smallest of these devices has for a block: 99 KB.
  static constexpr int kStages = kStageBytes <= 24 * 1024 ? 4 : kStageBytes <= 32 * 1024 ? 3 : 2;
  static constexpr int kSharedBytes = kStages * kStageBytes;
  static constexpr int kThreads = kWide ? 256 : 128;
  static constexpr int kBlocksOfUnit = kWide ? kWideUnitTiles / 2 : 1;
};

// `bytes` from global to shared memory by all threads, 16 at a time.
template <int kThreads>
__device__ void CopyAsync(char* shared, const char* global, int bytes) {
  for (int i = threadIdx.x * 16; i < bytes; i += kThreads * 16) {
    CopyAsync16(SharedAddress(shared + i), global + i);
  }
}

template <typename S>
__device__ void CopyStage(const GroupedMatMul& work, const Unit& unit, int block, char* stage) {
  const int n_blocks = work.shape.n_in_blocks();
  const char* tiles = static_cast<const char*>(unit.group->weights) +
                      (static_cast<int64_t>(unit.tile) * n_blocks + block) * S::kTileBytes;
  if constexpr (S::kWide) {
    CopyAsync<S::kThreads>(stage, tiles, S::kTileBytes);
    if (unit.tile + 1 < work.shape.n_tiles()) {
      CopyAsync<S::kThreads>(stage + S::kTileBytes, tiles + int64_t{n_blocks} * S::kTileBytes, S::kTileBytes);
    }
  } else {
    CopyAsync<S::kThreads>(stage, tiles, 2 * S::kTileBytes);
  }
  const int row_bytes = (unit.n_rows + kRowsAlign - 1) / kRowsAlign * kRowsAlign * 128;
  for (int i = 0; i < S::kBlocks; ++i) {
    CopyAsync<S::kThreads>(stage + 2 * S::kTileBytes + i * S::kRowBytes,
                           ActivationRows(work.x, *unit.group, n_blocks, block + i, unit.first_row),
                           row_bytes);
  }
}

// Adds 64 inputs: sums += a[16 tile rows of this warp] b[the unit's rows].
template <typename S>
__device__ void MultiplyBlock(const char* a_tile, const char* b_rows, int n_rows, int warp, int lane,
                              float (&sums)[S::kRows / 2]) {
  uint32_t tile[4][4];
  if constexpr (S::kFormat != WeightFormat::kBF16) ReadTile<S::kFormat>(a_tile, 32 * warp + lane, tile);
#pragma unroll
  for (int k = 0; k < kTileInputs; k += 16) {
    uint32_t(&a)[4] = tile[k / 16];
    if constexpr (S::kFormat == WeightFormat::kBF16) {
      LoadMatrices(SharedAddress(a_tile + SwizzledOffset(16 * warp + lane % 16, k + lane / 16 * 8)), a);
    }
    if constexpr (S::kRows == 8) {
      uint32_t b[2];
      LoadMatrices(SharedAddress(b_rows + SwizzledOffset(lane % 8, k + lane / 8 % 2 * 8)), b);
      MultiplyAdd(&sums[0], a, b[0], b[1]);
    } else {
#pragma unroll
      for (int j = 0; j < S::kRows / 16; ++j) {
        if (16 * j >= n_rows) break;
        uint32_t b[4];
        const int64_t at = SwizzledOffset(16 * j + lane % 8 + lane / 16 * 8, k + lane / 8 % 2 * 8);
        LoadMatrices(SharedAddress(b_rows + at), b);
        MultiplyAdd(&sums[8 * j], a, b[0], b[1]);
        MultiplyAdd(&sums[8 * j + 4], a, b[2], b[3]);
      }
    }
  }
}

template <typename S>
__global__ void __launch_bounds__(S::kThreads) Kernel(const __grid_constant__ GroupedMatMul work) {
  GATEFOLD_DYNAMIC_SHARED(__align__(128) char, shared);
  Unit unit;
  if (!FindUnit(work, blockIdx.x / S::kBlocksOfUnit, &unit)) return;
  unit.tile += blockIdx.x % S::kBlocksOfUnit * 2;
  if (unit.tile >= work.shape.n_tiles()) return;
  const int n_stages = work.shape.n_in_blocks() / S::kBlocks;
  const int group = threadIdx.x / 128, thread = threadIdx.x % 128;
  const int warp = thread / 32, lane = thread % 32;
  float sums[S::kRows / 2] = {};

  for (int i = 0; i < S::kStages - 1; ++i) {
    if (i < n_stages) CopyStage<S>(work, unit, i * S::kBlocks, shared + i * S::kStageBytes);
    CommitCopies();
  }
  for (int i = 0; i < n_stages; ++i) {
    WaitForCopies<S::kStages - 2>();
    __syncthreads();  // everybody's part of stage i has come, and stage i - 1 has been read
    const int next = i + S::kStages - 1;
    if (next < n_stages) {
      CopyStage<S>(work, unit, next * S::kBlocks, shared + next % S::kStages * S::kStageBytes);
    }
    CommitCopies();
    const char* stage = shared + i % S::kStages * S::kStageBytes;
#pragma unroll
    for (int block = 0; block < S::kBlocks; ++block) {
      MultiplyBlock<S>(stage + (S::kWide ? group : block) * S::kTileBytes,
                       stage + 2 * S::kTileBytes + block * S::kRowBytes, unit.n_rows, warp, lane, sums);
    }
  }
  WaitForCopies<0>();
  __syncthreads();  // the stages are free

  const int tile = unit.tile + group;
  if constexpr (S::kEpilogue == Epilogue::kStore) {
    StoreSums(work, unit, tile, warp, lane, sums);
  } else {
    GateToShared(work, unit, tile, warp, lane, sums, shared);
    __syncthreads();
    SharedToActivations(work, unit, tile, thread, shared);
  }
}

template <typename S>
cudaError_t LaunchShape(const GroupedMatMul& work, cudaStream_t stream) {
  static std::atomic<bool> is_allowed = false;
  GF_CUDA_RETURN_IF_ERROR(AllowShared(Kernel<S>, S::kSharedBytes, false, &is_allowed));
  return LaunchKernel(Kernel<S>,
                      {.n_blocks = int64_t{work.n_units} * S::kBlocksOfUnit,
                       .n_threads = S::kThreads,
                       .shared_bytes = S::kSharedBytes},
                      stream, work);
}

template <WeightFormat kFormat, int kRows>
cudaError_t LaunchRows(const GroupedMatMul& work, cudaStream_t stream) {
  if (work.epilogue == Epilogue::kGatedActivations) {
    return LaunchShape<Shape<kFormat, kRows, Epilogue::kGatedActivations>>(work, stream);
  }
  return LaunchShape<Shape<kFormat, kRows, Epilogue::kStore>>(work, stream);
}

template <WeightFormat kFormat>
cudaError_t LaunchFormat(const GroupedMatMul& work, cudaStream_t stream) {
  switch (work.unit_rows) {
    case 8:
      return LaunchRows<kFormat, 8>(work, stream);
    case 16:
      return LaunchRows<kFormat, 16>(work, stream);
    case 32:
      return LaunchRows<kFormat, 32>(work, stream);
    case 64:
      return LaunchRows<kFormat, 64>(work, stream);
    default:
      return LaunchRows<kFormat, WideUnitsOf(kFormat).most>(work, stream);
  }
}

}  // namespace

cudaError_t LaunchSm80(const GroupedMatMul& work, cudaStream_t stream) {
  switch (work.shape.format) {
    case WeightFormat::kBF16:
      return LaunchFormat<WeightFormat::kBF16>(work, stream);
    case WeightFormat::kInt8:
      return LaunchFormat<WeightFormat::kInt8>(work, stream);
    case WeightFormat::kInt4:
      return LaunchFormat<WeightFormat::kInt4>(work, stream);
  }
  return cudaErrorInvalidValue;
}

}  // namespace gatefold::cuda
