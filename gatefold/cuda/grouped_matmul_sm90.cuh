#pragma once

// Hopper's kernel of the grouped product, for one format of weights. Device code for sm_90a only.

#include <type_traits>

#include "gatefold/cuda/grouped_matmul_plan.h"
#include "gatefold/cuda/grouped_matmul_unit.cuh"
#include "gatefold/cuda/quantised_tile.cuh"
#include "gatefold/cuda/wgmma.cuh"
#include "gatefold/cuda/wgmma_shapes.cuh"

namespace gatefold::cuda::sm90 {

// A block: one warp that copies, and warpgroups of 128 threads that multiply, kRows rows each. They
// meet in a ring of stages in shared memory. Blocks stay, and take every n-th unit, so that the copies
// of the next unit run while this one's sums are written.
//
// Decode is bound by the bytes of the weights: what counts is that about 100 KB per multiprocessor are
// always under way, hence deep rings and two blocks. Prefill is bound by the tensor cores and by what
// L2 delivers: hence the widest unit whose sums fit the registers, 128 outputs by 256 rows.
template <WeightFormat kWeights, int kRowsOfGroup, int kGroupsOfBlock, bool kPairOfTiles, Epilogue kEnd>
struct Shape {
  static constexpr WeightFormat kFormat = kWeights;
  static constexpr int kRows = kRowsOfGroup;
  static constexpr int kGroups = kGroupsOfBlock;
  static constexpr bool kPair = kPairOfTiles;
  static constexpr Epilogue kEpilogue = kEnd;
  static constexpr int kUnitRows = kRows * kGroups;
  static constexpr int kBlocks = kPair ? 1 : 2;  // input blocks of a stage
  static constexpr int kRowBytes = kUnitRows * 128;  // activations of one input block
  static constexpr int kTileBytes = TileBytes(kFormat);
  static constexpr int kPairBytes = PairBytes(kFormat);
  static constexpr int kRowsAt = (kPairBytes + 1023) / 1024 * 1024;  // descriptors want it
  static constexpr int kStageBytes = kRowsAt + kBlocks * kRowBytes;
  static constexpr int kGateBytes = kEpilogue == Epilogue::kGatedActivations ? kRowBytes : 0;
  static constexpr int kBlocksPerProcessor = kGroups == 1 ? 2 : 1;
  static constexpr int kBudget = (kBlocksPerProcessor == 2 ? 112 : 225) * 1024 - kGateBytes;
  static constexpr int kStages = kBudget / kStageBytes;
  static constexpr int kSharedBytes = kStages * kStageBytes + kGateBytes + 2 * kStages * 8 + 1024;
  // Two groups of sums need more registers than a third of the file: the copying warp gets a warpgroup
  // to itself, which then gives its registers away.
  static constexpr bool kMoveRegisters = kGroups == 2;
  static constexpr int kThreads = kGroups * 128 + (kMoveRegisters ? 128 : 32);
};

// Where a ring is: the stage, and how often it was all around.
template <int kStages>
struct RingPosition {
  int stage = 0;
  uint32_t parity = 0;
  __device__ void Next() {
    if (++stage == kStages) {
      stage = 0;
      parity ^= 1;
    }
  }
};

struct Ring {
  char* stages;
  uint64_t* full;   // [stages]
  uint64_t* empty;  // [stages]
};

// One thread: keeps the ring filled.
template <typename S>
__device__ void Produce(const GroupedMatMul& work, const Ring& ring) {
  const int n_blocks = work.shape.n_in_blocks();
  RingPosition<S::kStages> at;
  for (int index = blockIdx.x; index < work.n_units; index += gridDim.x) {
    const Unit unit = FindUnit(work.groups, work.n_groups, index, S::kUnitRows);
    const uint32_t row_bytes = (unit.n_rows + kRowsAlign - 1) / kRowsAlign * kRowsAlign * 128;
    const char* weights = static_cast<const char*>(unit.group->weights);
    const int pair = S::kPair ? unit.tile : unit.tile / 2;
    const int half = S::kPair ? 0 : unit.tile % 2;
    for (int block = 0; block < n_blocks; block += S::kBlocks) {
      BarrierWait(&ring.empty[at.stage], at.parity ^ 1);
      uint64_t* full = &ring.full[at.stage];
      char* stage = ring.stages + at.stage * S::kStageBytes;
      BarrierExpect(full, S::kPairBytes + S::kBlocks * row_bytes);
      const char* tiles = weights + (static_cast<int64_t>(pair) * n_blocks + block) * S::kPairBytes;
      if constexpr (S::kPair) {
        BulkCopy(stage, tiles, S::kPairBytes, full);
      } else {
        tiles += half * S::kTileBytes;
        BulkCopy(stage, tiles, S::kTileBytes, full);
        BulkCopy(stage + S::kTileBytes, tiles + S::kPairBytes, S::kTileBytes, full);
      }
      for (int i = 0; i < S::kBlocks; ++i) {
        BulkCopy(stage + S::kRowsAt + i * S::kRowBytes,
                 ActivationRows(work.x, *unit.group, n_blocks, block + i, unit.first_row), row_bytes, full);
      }
      at.Next();
    }
  }
}

// Adds one stage of bfloat16 weights to the sums of kRows rows: of both tiles, or of one over two input blocks.
template <typename S, int kRows>
__device__ __forceinline__ void MultiplyStage(const char* stage, int warpgroup, float (&sums)[kRows / 2],
                              float (&sums2)[kRows / 2]) {
  const uint64_t a = MatrixDescriptor(stage);
  const uint64_t a2 = MatrixDescriptor(stage + S::kTileBytes);
  const char* rows = stage + S::kRowsAt + warpgroup * kRows * 128;
  const uint64_t b = MatrixDescriptor(rows);
  WgmmaFence();
  if constexpr (S::kPair) {
#pragma unroll
    for (int k = 0; k < 4; ++k) {
      Wgmma(sums, a + k * kNextInputs, b + k * kNextInputs);
      Wgmma(sums2, a2 + k * kNextInputs, b + k * kNextInputs);
    }
  } else {
    const uint64_t b2 = MatrixDescriptor(rows + S::kRowBytes);
#pragma unroll
    for (int k = 0; k < 4; ++k) {
      Wgmma(sums, a + k * kNextInputs, b + k * kNextInputs);
    }
#pragma unroll
    for (int k = 0; k < 4; ++k) Wgmma(sums, a2 + k * kNextInputs, b2 + k * kNextInputs);
  }
  WgmmaCommit();
}

__device__ inline void WarpgroupSync(int warpgroup) {
  if (warpgroup == 0) {
    asm volatile("bar.sync 1, 128;" ::: "memory");
  } else {
    asm volatile("bar.sync 2, 128;" ::: "memory");
  }
}

template <typename S, int kRows>
__device__ __forceinline__ void Finish(const GroupedMatMul& work, const Unit& unit, int warpgroup, int thread,
                       float (&sums)[kRows / 2], float (&sums2)[kRows / 2], char* gate_rows) {
  const int first_row = warpgroup * kRows;
  const int n_rows = min(kRows, unit.n_rows - first_row);
  const int warp = thread / 32, lane = thread % 32;
  if constexpr (S::kEpilogue == Epilogue::kStore) {
    const int64_t first_out = static_cast<int64_t>(unit.tile) * kTileRows * (S::kPair ? 2 : 1);
    StoreSums(work, unit, first_out, first_row, warp, lane, sums);
    if constexpr (S::kPair) StoreSums(work, unit, first_out + kTileRows, first_row, warp, lane, sums2);
  } else {
    char* block = gate_rows + first_row * 128;
    GateToShared(work, unit, warp, lane, sums, sums2, block);
    WarpgroupSync(warpgroup);
    SharedToActivations(work, unit, first_row, n_rows, thread, block);
    WarpgroupSync(warpgroup);  // before it is written again
  }
}

// One warpgroup's rows of one unit, kRows of them.
template <typename S, int kRows>
__device__ __forceinline__ void MultiplyUnit(const Ring& ring, int n_stages, RingPosition<S::kStages>& at, int warpgroup,
                             int thread, bool active, float (&sums)[kRows / 2],
                             float (&sums2)[kRows / 2]) {
  uint64_t* before = nullptr;  // of the stage that is still being read
  for (int i = 0; i < n_stages; ++i) {
    BarrierWait(&ring.full[at.stage], at.parity);
    if (active) {
      MultiplyStage<S, kRows>(ring.stages + at.stage * S::kStageBytes, warpgroup, sums, sums2);
      WgmmaWait<1>();
    }
    if (before != nullptr && thread % 32 == 0) BarrierArrive(before);
    before = &ring.empty[at.stage];
    at.Next();
  }
  WgmmaWait<0>();
  if (thread % 32 == 0) BarrierArrive(before);
}

// The same of quantised weights, which become bfloat16 in registers: one tile's while the tensor cores
// have the one before. The sums are those that these bfloat16 give as weights, bit for bit.
template <typename S, int kRows>
__device__ __forceinline__ void MultiplyQuantisedUnit(const Ring& ring, int n_stages, RingPosition<S::kStages>& at,
                                      int warpgroup, int thread, bool active, float (&sums)[kRows / 2],
                                      float (&sums2)[kRows / 2]) {
  uint32_t a[2][4][4] = {};    // by tile of the stage
  uint64_t* before = nullptr;  // of the stage that is still being read
  for (int i = 0; i < n_stages; ++i) {
    BarrierWait(&ring.full[at.stage], at.parity);
    const char* stage = ring.stages + at.stage * S::kStageBytes;
    const char* rows = stage + S::kRowsAt + warpgroup * kRows * 128;
#pragma unroll
    for (int tile = 0; tile < 2; ++tile) {
      if (active) {
        WgmmaWait<1>();  // nobody reads a[tile] any more
        HoldOperands(a[tile]);
      }
      if (tile == 1 && before != nullptr && thread % 32 == 0) BarrierArrive(before);
      if (!active) continue;
      ReadTile<S::kFormat>(stage + tile * S::kTileBytes, thread, a[tile]);
      const uint64_t b = MatrixDescriptor(rows + (S::kPair ? 0 : tile * S::kRowBytes));
      WgmmaFence();
#pragma unroll
      for (int k = 0; k < 4; ++k) {
        Wgmma(S::kPair && tile == 1 ? sums2 : sums, a[tile][k], b + k * kNextInputs);
      }
      WgmmaCommit();
    }
    before = &ring.empty[at.stage];
    at.Next();
  }
  WgmmaWait<0>();
  HoldOperands(a[0]);
  HoldOperands(a[1]);
  if (thread % 32 == 0) BarrierArrive(before);
}

template <typename S, int kRows>
__device__ __forceinline__ void ComputeUnit(const GroupedMatMul& work, const Ring& ring, const Unit& unit,
                            RingPosition<S::kStages>& at, int warpgroup, int thread, char* gate_rows) {
  const int n_stages = work.shape.n_in_blocks() / S::kBlocks;
  const bool active = warpgroup * kRows < unit.n_rows;
  float sums[kRows / 2] = {}, sums2[kRows / 2] = {};
  HoldSums(sums);  // zero now: no other instruction may write them while products do
  HoldSums(sums2);
  if constexpr (S::kFormat == WeightFormat::kBF16) {
    MultiplyUnit<S, kRows>(ring, n_stages, at, warpgroup, thread, active, sums, sums2);
  } else {
    MultiplyQuantisedUnit<S, kRows>(ring, n_stages, at, warpgroup, thread, active, sums, sums2);
  }
  if (!active) return;
  HoldSums(sums);
  if constexpr (S::kPair) HoldSums(sums2);
  Finish<S, kRows>(work, unit, warpgroup, thread, sums, sums2, gate_rows);
}

// One warpgroup: multiplies what comes.
template <typename S>
__device__ void Consume(const GroupedMatMul& work, const Ring& ring, int warpgroup, int thread,
                        char* gate_rows) {
  RingPosition<S::kStages> at;
  for (int index = blockIdx.x; index < work.n_units; index += gridDim.x) {
    const Unit unit = FindUnit(work.groups, work.n_groups, index, S::kUnitRows);
    if constexpr (S::kGroups == 1) {
      ComputeUnit<S, S::kRows>(work, ring, unit, at, warpgroup, thread, gate_rows);
    } else {
      // Halves of wide units: what is added up does not depend on how many rows are beside.
      static_assert(S::kRows == 128 && S::kGroups == 2 && kWideUnitStep == 32);
      switch (unit.width / kWideUnitStep) {
        case 1: ComputeUnit<S, 16>(work, ring, unit, at, warpgroup, thread, gate_rows); break;
        case 2: ComputeUnit<S, 32>(work, ring, unit, at, warpgroup, thread, gate_rows); break;
        case 3: ComputeUnit<S, 48>(work, ring, unit, at, warpgroup, thread, gate_rows); break;
        case 4: ComputeUnit<S, 64>(work, ring, unit, at, warpgroup, thread, gate_rows); break;
        case 5: ComputeUnit<S, 80>(work, ring, unit, at, warpgroup, thread, gate_rows); break;
        case 6: ComputeUnit<S, 96>(work, ring, unit, at, warpgroup, thread, gate_rows); break;
        case 7: ComputeUnit<S, 112>(work, ring, unit, at, warpgroup, thread, gate_rows); break;
        default: ComputeUnit<S, 128>(work, ring, unit, at, warpgroup, thread, gate_rows); break;
      }
    }
  }
}

template <typename S>
__global__ void __launch_bounds__(S::kThreads, S::kBlocksPerProcessor)
    Kernel(const __grid_constant__ GroupedMatMul work) {
  extern __shared__ char shared[];
  char* base = shared + (1024 - SharedAddress(shared) % 1024) % 1024;  // descriptors want it
  Ring ring;
  ring.stages = base;
  char* gate_rows = base + S::kStages * S::kStageBytes;
  ring.full = reinterpret_cast<uint64_t*>(gate_rows + S::kGateBytes);
  ring.empty = ring.full + S::kStages;
  if (threadIdx.x == 0) {
    for (int i = 0; i < S::kStages; ++i) {
      BarrierInit(&ring.full[i], 1);
      BarrierInit(&ring.empty[i], 4 * S::kGroups);  // a warp arrives once
    }
    asm volatile("fence.proxy.async.shared::cta;" ::: "memory");
  }
  __syncthreads();
  const int warpgroup = threadIdx.x / 128;
  if (warpgroup == S::kGroups) {
    if constexpr (S::kMoveRegisters) asm volatile("setmaxnreg.dec.sync.aligned.u32 40;");
    if (threadIdx.x % 128 == 0) Produce<S>(work, ring);
  } else {
    if constexpr (S::kMoveRegisters) asm volatile("setmaxnreg.inc.sync.aligned.u32 232;");
    Consume<S>(work, ring, warpgroup, threadIdx.x % 128, gate_rows);
  }
}

template <typename S>
cudaError_t LaunchShape(const GroupedMatMul& work, int n_processors, cudaStream_t stream) {
  static_assert(S::kStages >= 3);
  cudaError_t error = cudaFuncSetAttribute(Kernel<S>, cudaFuncAttributeMaxDynamicSharedMemorySize,
                                           S::kSharedBytes);
  if (error != cudaSuccess) return error;
  const int blocks = n_processors * S::kBlocksPerProcessor;
  Kernel<S><<<work.n_units < blocks ? work.n_units : blocks, S::kThreads, S::kSharedBytes, stream>>>(work);
  return cudaGetLastError();
}

template <WeightFormat kFormat, int kRows, int kGroups, bool kStorePair>
cudaError_t LaunchRows(const GroupedMatMul& work, int n_processors, cudaStream_t stream) {
  if (work.epilogue == Epilogue::kGatedActivations) {
    return LaunchShape<Shape<kFormat, kRows, kGroups, true, Epilogue::kGatedActivations>>(
        work, n_processors, stream);
  }
  return LaunchShape<Shape<kFormat, kRows, kGroups, kStorePair, Epilogue::kStore>>(work, n_processors,
                                                                                   stream);
}

template <WeightFormat kFormat>
cudaError_t LaunchFormat(const GroupedMatMul& work, int n_processors, cudaStream_t stream) {
  switch (PlanUnits(work.shape, work.epilogue, work.max_rows).rows) {
    case 8:
      return LaunchRows<kFormat, 8, 1, false>(work, n_processors, stream);
    case 16:
      return LaunchRows<kFormat, 16, 1, false>(work, n_processors, stream);
    case 32:
      return LaunchRows<kFormat, 32, 1, false>(work, n_processors, stream);
    case 64:
      return LaunchRows<kFormat, 64, 1, false>(work, n_processors, stream);
    default:
      return LaunchRows<kFormat, 128, 2, true>(work, n_processors, stream);
  }
}

}  // namespace gatefold::cuda::sm90
