#pragma once

// Hopper's kernel of the grouped product, for one format of weights. Device code for sm_90a only.

#include <atomic>

#include "gatefold/cuda/cuda_macros.h"
#include "gatefold/cuda/grouped_matmul_plan.h"
#include "gatefold/cuda/grouped_matmul_unit.cuh"
#include "gatefold/cuda/launch.h"
#include "gatefold/cuda/matrix_descriptor.h"
#include "gatefold/cuda/quantised_tile.cuh"
#include "gatefold/cuda/unit_turn.cuh"
#include "gatefold/cuda/wgmma.cuh"
#include "gatefold/cuda/wgmma_shapes.cuh"

namespace gatefold::cuda::sm90 {

// A block: one warp that copies, and one or two warpgroups of 128 threads that multiply a tile of weights
// each by all rows of the unit. They meet in a ring of stages in shared memory. Blocks stay and take unit
// after unit, so that the copies of the next one run while this one's sums are written.
//
// Narrow units, one tile by up to 64 rows, are bound by the bytes of the weights: what counts is that about
// 100 KB per multiprocessor are always under way, hence deep rings and several blocks; a stage has two
// input blocks. Quantised weights need more warps to become bfloat16 as fast as they come: more blocks.
// Wide units, four tiles by up to 256 rows, are bound by the tensor cores, by what they read of shared
// memory (hence a warpgroup's instruction is as wide as the unit), and by what L2 delivers: two blocks of
// a cluster take two tiles each and the same rows, of which each copies half, to both.
template <WeightFormat kWeights, int kMostRows, Epilogue kEnd>
struct Shape {
  static constexpr WeightFormat kFormat = kWeights;
  static constexpr int kRows = kMostRows;
  static constexpr bool kWide = kRows > kNarrowUnitRows;
  static constexpr int kGroups = kWide ? 2 : 1;
  static constexpr int kCluster = kWide ? kWideUnitTiles / 2 : 1;
  static constexpr Epilogue kEpilogue = kEnd;
  static constexpr int kTileBytes = TileBytes(kFormat);
  static constexpr int kBlocks = kWide ? 1 : 2;          // input blocks of a stage
  static constexpr int kRowBytes = kRows * 128;          // activations of one input block
  static constexpr int kRowsAt = (2 * kTileBytes + 1023) / 1024 * 1024;  // descriptors want it
  static constexpr int kStageBytes = kRowsAt + kBlocks * kRowBytes;
  static constexpr int kGateBytes = kEpilogue == Epilogue::kGatedActivations ? kRowBytes : 0;
  static constexpr int kBlocksPerProcessor = kWide                            ? 1
                                             : kFormat == WeightFormat::kBF16 ? 2
                                             : kRows <= 16                    ? 4
                                             : kRows <= 32                    ? 3
                                                                              : 2;
  // Beside the stages: activations to be written, a Turn's letters, what alignment takes. Each block costs
  // kBlockBytes more; a block that found no room would start when others end.
  static constexpr int kProcessorBytes = 228 * 1024, kBlockBytes = 1024;
  static constexpr int kAroundBytes = kGateBytes + sizeof(Letters) + 1024;
  static constexpr int kWholeStageBytes = kStageBytes + 2 * sizeof(uint64_t) + sizeof(Unit);
  static constexpr int kStages =
      (kProcessorBytes / kBlocksPerProcessor - kBlockBytes - kAroundBytes) / kWholeStageBytes;
  static constexpr int kSharedBytes = kStages * kWholeStageBytes + kAroundBytes;
  // Few blocks of quantised weights are kept apart: on one multiprocessor they wait for each other's
  // conversions, and that is where they would go if the kernel before, with which they overlap, ends there first.
  static constexpr bool kSpreads = !kWide && kFormat != WeightFormat::kBF16;
  // What to ask for so that n blocks find room, and not one more.
  static constexpr int SharedBytesFor(int n) {
    const int too_much = kProcessorBytes / (n + 1) - kBlockBytes + 128;
    return n < kBlocksPerProcessor && too_much > kSharedBytes ? too_much : kSharedBytes;
  }
  static constexpr bool FindsRoom(int n_blocks, int bytes) {
    return bytes <= 227 * 1024 && n_blocks * (bytes + kBlockBytes) <= kProcessorBytes;
  }
  static constexpr bool SharedBytesAreRight() {
    for (int n = 1; n <= kBlocksPerProcessor; ++n) {
      if (!FindsRoom(n, SharedBytesFor(n)) || (n < kBlocksPerProcessor && FindsRoom(n + 1, SharedBytesFor(n)))) {
        return false;
      }
    }
    return true;
  }
  // Two groups of sums need more registers than a third of the file: the copying warp gets a warpgroup
  // to itself, which then gives its registers away.
  static constexpr bool kMoveRegisters = kWide;
  static constexpr int kThreads = kGroups * 128 + (kMoveRegisters ? 128 : 32);
};

// Of rows of 64 inputs.
__device__ inline uint64_t DescriptorOf(const void* shared) { return Descriptor(SharedAddress(shared), 16); }

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
  Unit* units;      // [stages]: the one that begins there; without rows: there are no more
};

// One thread: keeps the ring filled.
template <typename S>
__device__ void Produce(const GroupedMatMul& work, const Ring& ring, Letters* letters) {
  static_assert(!S::kWide || S::kStages / 2 + 2 <= Letters::kNumber);  // a unit has two stages or more
  constexpr uint16_t kAllBlocks = (1 << S::kCluster) - 1;
  const int n_blocks = work.shape.n_in_blocks();
  RingPosition<S::kStages> at;
  Turn<S> turn(work, letters);
  const int rank = turn.rank();
  Unit unit;
  for (; FindUnit(work, turn.unit(), &unit); turn.Next()) {
    turn.AskForNext();
    unit.tile += 2 * rank;
    // The last unit may lack tiles: what is multiplied in their place is not stored.
    const int n_tiles = S::kWide ? max(0, min(2, work.shape.n_tiles() - unit.tile)) : 1;
    const uint32_t row_bytes = (unit.n_rows + kRowsAlign - 1) / kRowsAlign * kRowsAlign * 128;
    const int64_t next_rows = RoundedRows(*unit.group) * int64_t{128};  // to the next input block
    const char* rows = ActivationRows(work.x, *unit.group, n_blocks, 0, unit.first_row);
    const char* tiles = static_cast<const char*>(unit.group->weights) +
                        static_cast<int64_t>(unit.tile) * n_blocks * S::kTileBytes;
    // Of the rows, what this block copies.
    const uint32_t part = (row_bytes / 1024 + S::kCluster - 1) / S::kCluster * 1024;
    const uint32_t my_begin = rank * part, my_bytes = min(part, row_bytes - my_begin);
    for (int block = 0; block < n_blocks; block += S::kBlocks) {
      BarrierWait(&ring.empty[at.stage], at.parity ^ 1);
      if (block == 0) ring.units[at.stage] = unit;
      uint64_t* full = &ring.full[at.stage];
      char* stage = ring.stages + at.stage * S::kStageBytes;
      BarrierExpect(full, S::kBlocks * (n_tiles * S::kTileBytes + row_bytes));
      if constexpr (S::kWide) {
        for (int i = 0; i < n_tiles; ++i) {
          BulkCopy(stage + i * S::kTileBytes, tiles + int64_t{n_blocks} * i * S::kTileBytes, S::kTileBytes,
                   full);
        }
        if (my_bytes > 0) {
          BulkCopyToCluster(stage + S::kRowsAt + my_begin, rows + my_begin, my_bytes, full, kAllBlocks);
        }
        tiles += S::kTileBytes;
        rows += next_rows;
      } else {
        BulkCopy(stage, tiles, 2 * S::kTileBytes, full);
        if (next_rows == row_bytes) {  // all rows of the group: those of two input blocks lie together
          BulkCopy(stage + S::kRowsAt, rows, 2 * row_bytes, full);
        } else {
          BulkCopy(stage + S::kRowsAt, rows, row_bytes, full);
          BulkCopy(stage + S::kRowsAt + row_bytes, rows + next_rows, row_bytes, full);
        }
        tiles += 2 * S::kTileBytes;
        rows += 2 * next_rows;
      }
      at.Next();
    }
  }
  turn.End();
  BarrierWait(&ring.empty[at.stage], at.parity ^ 1);
  ring.units[at.stage] = Unit{};
  BarrierArrive(&ring.full[at.stage]);
}

// This warp has read a stage, which is empty when all warps have that could read it in this block or,
// where the cluster's blocks write into each other's, in any.
template <typename S>
__device__ __forceinline__ void Release(uint64_t* empty, int lane) {
  if constexpr (S::kCluster == 1) {
    if (lane == 0) BarrierArrive(empty);
  } else {
    if (lane < S::kCluster) ClusterArrive(empty, lane);
  }
}

// One warpgroup's tile of one unit, by kRows rows. A stage has the next input block for each warpgroup's
// tile, or the next two for one.
template <typename S, int kRows>
__device__ __forceinline__ void MultiplyUnit(const Ring& ring, int n_stages, RingPosition<S::kStages>& at,
                                             int row_bytes, int warpgroup, int thread,
                                             float (&sums)[kRows / 2]) {
  uint64_t* before = nullptr;  // of the stage that is still being read
  for (int i = 0; i < n_stages; ++i) {
    BarrierWait(&ring.full[at.stage], at.parity);
    const char* stage = ring.stages + at.stage * S::kStageBytes;
    WgmmaFence();
#pragma unroll
    for (int block = 0; block < S::kBlocks; ++block) {
      const uint64_t a = DescriptorOf(stage + (S::kWide ? warpgroup : block) * S::kTileBytes);
      const uint64_t b = DescriptorOf(stage + S::kRowsAt + block * row_bytes);
#pragma unroll
      for (int k = 0; k < 4; ++k) Wgmma(sums, a + k * kNextInputs, b + k * kNextInputs);
    }
    WgmmaCommit();
    WgmmaWait<1>();
    if (before != nullptr) Release<S>(before, thread % 32);
    before = &ring.empty[at.stage];
    at.Next();
  }
  WgmmaWait<0>();
  Release<S>(before, thread % 32);
}

// The same of quantised weights, which become bfloat16 in registers: one input block's while the tensor
// cores have the one before. The sums are those that these bfloat16 give as weights, bit for bit.
template <typename S, int kRows>
__device__ __forceinline__ void MultiplyQuantisedUnit(const Ring& ring, int n_pairs,
                                                      RingPosition<S::kStages>& at, int row_bytes,
                                                      int warpgroup, int thread,
                                                      float (&sums)[kRows / 2]) {
  uint32_t a[2][4][4] = {};    // by turns
  uint64_t* before = nullptr;  // of the stage that is still being read
  for (int i = 0; i < n_pairs; ++i) {
    const char* stage = nullptr;
#pragma unroll
    for (int turn = 0; turn < 2; ++turn) {
      if (S::kWide || turn == 0) {
        BarrierWait(&ring.full[at.stage], at.parity);
        stage = ring.stages + at.stage * S::kStageBytes;
      }
      ReadTile<S::kFormat>(stage + (S::kWide ? warpgroup : turn) * S::kTileBytes, thread, a[turn]);
      const uint64_t b = DescriptorOf(stage + S::kRowsAt + (S::kWide ? 0 : turn * row_bytes));
      WgmmaFence();
#pragma unroll
      for (int k = 0; k < 4; ++k) Wgmma(sums, a[turn][k], b + k * kNextInputs);
      WgmmaCommit();
      WgmmaWait<1>();
      HoldOperands(a[turn ^ 1]);  // till here the turn before read them
      if (S::kWide || turn == 1) {
        __syncwarp();  // all lanes have read that stage
        if (before != nullptr) Release<S>(before, thread % 32);
        before = &ring.empty[at.stage];
        at.Next();
      }
    }
  }
  WgmmaWait<0>();
  HoldOperands(a[0]);
  HoldOperands(a[1]);
  __syncwarp();
  Release<S>(before, thread % 32);
}

__device__ inline void WarpgroupSync(int warpgroup) {
  if (warpgroup == 0) {
    SyncThreads<128, 1>();
  } else {
    SyncThreads<128, 2>();
  }
}

template <typename S, int kRows>
__device__ __forceinline__ void ComputeUnit(const GroupedMatMul& work, const Ring& ring, const Unit& unit,
                                            RingPosition<S::kStages>& at, int warpgroup, int thread,
                                            char* gate_rows) {
  const int n_blocks = work.shape.n_in_blocks();
  const int row_bytes = (unit.n_rows + kRowsAlign - 1) / kRowsAlign * kRowsAlign * 128;  // of an input block
  float sums[kRows / 2] = {};
  HoldSums(sums);  // zero now: no other instruction may write them while products do
  if constexpr (S::kFormat == WeightFormat::kBF16) {
    MultiplyUnit<S, kRows>(ring, n_blocks / S::kBlocks, at, row_bytes, warpgroup, thread, sums);
  } else {
    MultiplyQuantisedUnit<S, kRows>(ring, n_blocks / 2, at, row_bytes, warpgroup, thread, sums);
  }
  HoldSums(sums);
  const int tile = unit.tile + warpgroup, warp = thread / 32, lane = thread % 32;
  if constexpr (S::kEpilogue == Epilogue::kStore) {
    StoreSums(work, unit, tile, warp, lane, sums);
  } else {
    GateToShared(work, unit, tile, warp, lane, sums, gate_rows);
    WarpgroupSync(warpgroup);
    SharedToActivations(work, unit, tile, thread, gate_rows);
    WarpgroupSync(warpgroup);  // before it is written again
  }
}

// The same for a wide unit, by the instruction of its width: what is added up does not depend on how many
// rows are beside.
template <typename S, int kRows>
__device__ __forceinline__ void ComputeWideUnit(const GroupedMatMul& work, const Ring& ring,
                                                const Unit& unit, RingPosition<S::kStages>& at,
                                                int warpgroup, int thread, char* gate_rows) {
  if (unit.width == kRows) {
    ComputeUnit<S, kRows>(work, ring, unit, at, warpgroup, thread, gate_rows);
  } else if constexpr (kRows < S::kRows) {
    ComputeWideUnit<S, kRows + WideUnitsOf(S::kFormat).step>(work, ring, unit, at, warpgroup, thread,
                                                             gate_rows);
  }
}

// One warpgroup: multiplies what comes.
template <typename S>
__device__ void Consume(const GroupedMatMul& work, const Ring& ring, int warpgroup, int thread,
                        char* gate_rows) {
  RingPosition<S::kStages> at;
  while (true) {
    BarrierWait(&ring.full[at.stage], at.parity);
    const Unit unit = ring.units[at.stage];
    if (unit.n_rows == 0) return;
    if constexpr (S::kWide) {
      ComputeWideUnit<S, WideUnitsOf(S::kFormat).step>(work, ring, unit, at, warpgroup, thread, gate_rows);
    } else {
      ComputeUnit<S, S::kRows>(work, ring, unit, at, warpgroup, thread, gate_rows);
    }
  }
}

template <typename S>
__global__ void __cluster_dims__(S::kCluster, 1, 1) __launch_bounds__(S::kThreads, S::kBlocksPerProcessor)
    Kernel(const __grid_constant__ GroupedMatMul work) {
  BeginOverlapping();
  GATEFOLD_DYNAMIC_SHARED(char, shared);
  char* base = shared + (1024 - SharedAddress(shared) % 1024) % 1024;  // descriptors want it
  Ring ring;
  ring.stages = base;
  char* gate_rows = base + S::kStages * S::kStageBytes;
  ring.full = reinterpret_cast<uint64_t*>(gate_rows + S::kGateBytes);
  ring.empty = ring.full + S::kStages;
  auto* const letters = reinterpret_cast<Letters*>(ring.empty + S::kStages);
  ring.units = reinterpret_cast<Unit*>(letters + 1);
  if (threadIdx.x == 0) {
    for (int i = 0; i < S::kStages; ++i) {
      BarrierInit(&ring.full[i], 1);
      BarrierInit(&ring.empty[i], 4 * S::kGroups * S::kCluster);  // a warp arrives once
    }
    if constexpr (S::kWide) {
      for (uint64_t& sent : letters->sent) BarrierInit(&sent, 1);
    }
    FenceAsync();
    if constexpr (S::kCluster > 1) FenceBarriers();
  }
  if constexpr (S::kCluster > 1) {
    ClusterSync();
  } else {
    __syncthreads();
  }
  const int warpgroup = threadIdx.x / 128;
  if (warpgroup == S::kGroups) {
    if constexpr (S::kMoveRegisters) GiveRegisters<56>();
    if (threadIdx.x % 128 == 0) Produce<S>(work, ring, letters);
  } else {
    if constexpr (S::kMoveRegisters) TakeRegisters<224>();
    Consume<S>(work, ring, warpgroup, threadIdx.x % 128, gate_rows);
  }
  if constexpr (S::kCluster > 1) ClusterSync();  // the other block may still write here
}

template <typename S>
cudaError_t LaunchShape(const GroupedMatMul& work, int n_processors, cudaStream_t stream) {
  static_assert(S::kStages >= 3);
  static_assert(S::SharedBytesAreRight());
  // With as little L1 as may be, which is what many blocks take: to share memory another way, a
  // multiprocessor would have to wait until it is idle.
  static std::atomic<bool> is_allowed = false;
  GF_CUDA_RETURN_IF_ERROR(AllowShared(
      Kernel<S>, S::kSpreads ? S::SharedBytesFor(1) : S::kSharedBytes, S::kSpreads, &is_allowed));
  Grid grid = {.n_threads = S::kThreads,
               .shared_bytes = S::kSharedBytes,
               .cluster = S::kCluster,
               .overlaps = kMayOverlap};
  int most = n_processors * S::kBlocksPerProcessor;
  if constexpr (S::kCluster > 1) {
    static std::atomic<int> n_clusters = 0;  // which all stay till the end
    if (n_clusters == 0) n_clusters = MaxActiveClusters(Kernel<S>, grid);
    most = n_clusters;
    if (most == 0) return cudaErrorLaunchOutOfResources;
  }
  const int n = work.n_units < most ? work.n_units : most;
  grid.n_blocks = n * S::kCluster;
  if constexpr (S::kSpreads) {
    grid.shared_bytes = S::SharedBytesFor((n + n_processors - 1) / n_processors);
  }
  return LaunchKernel(Kernel<S>, grid, stream, work);
}

template <WeightFormat kFormat, int kRows>
cudaError_t LaunchRows(const GroupedMatMul& work, int n_processors, cudaStream_t stream) {
  if (work.epilogue == Epilogue::kGatedActivations) {
    return LaunchShape<Shape<kFormat, kRows, Epilogue::kGatedActivations>>(work, n_processors, stream);
  }
  return LaunchShape<Shape<kFormat, kRows, Epilogue::kStore>>(work, n_processors, stream);
}

template <WeightFormat kFormat>
cudaError_t LaunchFormat(const GroupedMatMul& work, int n_processors, cudaStream_t stream) {
  switch (work.unit_rows) {
    case 8:
      return LaunchRows<kFormat, 8>(work, n_processors, stream);
    case 16:
      return LaunchRows<kFormat, 16>(work, n_processors, stream);
    case 32:
      return LaunchRows<kFormat, 32>(work, n_processors, stream);
    case 64:
      return LaunchRows<kFormat, 64>(work, n_processors, stream);
    case WideUnitsOf(kFormat).fewer:
      return LaunchRows<kFormat, WideUnitsOf(kFormat).fewer>(work, n_processors, stream);
    default:
      return LaunchRows<kFormat, WideUnitsOf(kFormat).most>(work, n_processors, stream);
  }
}

}  // namespace gatefold::cuda::sm90
