#include "gatefold/cuda/grouped_matmul.h"

#include <algorithm>
#include <cmath>
#include <span>
#include <vector>

#include "gatefold/cuda/grouped_matmul_plan.h"
#include "gatefold/cuda/grouped_matmul_unit.cuh"
#include "gatefold/cuda/launch.h"
#include "gatefold/cuda/warp_ops.h"

namespace gatefold::cuda {
namespace {

struct GatherArgs {
  const float* x;
  const int32_t* sources;
  const MatMulGroup* groups;
  int n_groups;
  int64_t n_rows;
  int64_t n_in;
  char* activations;
  const GroupCounts* counts;
  int n_slices;  // of a row
};

// Four inputs of a row, of which there are n_in.
template <bool kWhole>
__device__ __forceinline__ float4 Inputs(const float* row, int64_t input, int64_t n_in) {
  if constexpr (kWhole) {
    return input < n_in ? *reinterpret_cast<const float4*>(row + input) : make_float4(0.0f, 0.0f, 0.0f, 0.0f);
  } else {
    const auto one = [&](int i) { return input + i < n_in ? row[input + i] : 0.0f; };
    return make_float4(one(0), one(1), one(2), one(3));
  }
}

// One warp gathers a slice of a row: a lane takes 8 inputs, 16 bytes of the result, at a time. kWhole: rows
// can be read by fours.
template <bool kWhole>
__global__ void GatherKernel(const __grid_constant__ GatherArgs args) {
  BeginOverlapping();
  const int64_t warp = static_cast<int64_t>(blockIdx.x) * (blockDim.x / 32) + threadIdx.x / 32;
  const int64_t row = warp / args.n_slices;
  const int n_groups = args.counts != nullptr ? args.counts->n_groups : args.n_groups;
  if (row >= (args.counts != nullptr ? args.counts->n_rows : args.n_rows)) return;
  int group = 0;
  for (int low = 0, high = n_groups - 1; low <= high;) {  // the last that starts at or before `row`
    const int middle = (low + high) / 2;
    if (args.groups[middle].first_row <= row) {
      group = middle;
      low = middle + 1;
    } else {
      high = middle - 1;
    }
  }
  const int n_blocks = static_cast<int>(RoundUp(args.n_in, kInputsAlign) / kTileInputs);
  const int lane = static_cast<int>(threadIdx.x) % 32;
  const int local = static_cast<int>(row - args.groups[group].first_row);
  char* const to = const_cast<char*>(ActivationRows(args.activations, args.groups[group], n_blocks, 0, 0)) +
                   SwizzledOffset(local, lane % 8 * 8);
  const int64_t next_block = RoundedRows(args.groups[group]) * int64_t{128};
  const int source = args.sources[row];
  const float* const from = args.x + (source < 0 ? 0 : source * args.n_in);
  const int64_t n_in = source < 0 ? 0 : args.n_in;
  // Several are read before any is written: else each would wait for the one before.
  constexpr int kBatch = 4;
  const int step = args.n_slices * 32;
  for (int first = static_cast<int>(warp % args.n_slices) * 32 + lane; first < n_blocks * 8;
       first += kBatch * step) {
    float4 a[kBatch], b[kBatch];
#pragma unroll
    for (int i = 0; i < kBatch; ++i) {
      const int64_t input = (first + int64_t{i} * step) * 8;
      a[i] = Inputs<kWhole>(from, input, n_in);
      b[i] = Inputs<kWhole>(from, input + 4, n_in);
    }
#pragma unroll
    for (int i = 0; i < kBatch; ++i) {
      const int64_t chunk = first + int64_t{i} * step;
      if (chunk >= n_blocks * 8) continue;
      *reinterpret_cast<uint4*>(to + chunk / 8 * next_block) =
          make_uint4(PackBF16(a[i].x, a[i].y), PackBF16(a[i].z, a[i].w), PackBF16(b[i].x, b[i].y),
                     PackBF16(b[i].z, b[i].w));
    }
  }
}

// How long a device of common size is busy with wide units of at most `most` rows, in rows of two tiles.
// What L2 delivers is the scarcest: a block takes two tiles of weights for each unit and half of each row's
// bytes, so the weights cost as much as 256 rows more (bfloat16). Then half a unit for the processors that
// end early.
double WideCost(const TileShape& shape, std::span<const MatMulGroup> groups, int most) {
  constexpr double kProcessors = 132;
  const double weights = 2.0 * TileBytes(shape.format) / (kTileInputs * 2 / 2);
  double rows = 0;
  int widest = 0;
  for (const MatMulGroup& group : groups) {
    const RowCut cut = CutRows(shape.format, most, group.n_rows);
    rows += (cut.Begin(cut.n_units) + cut.n_units * weights) * shape.n_tiles() / 2;
    if (group.n_rows > 0) widest = std::max(widest, cut.Width(0));
  }
  return rows / kProcessors + (widest + weights) / 2;
}

// The width of narrow units, by the largest group; or the most rows of wide ones.
int ChooseUnitRows(const TileShape& shape, std::span<const MatMulGroup> groups) {
  int max_rows = 0;
  for (const MatMulGroup& group : groups) max_rows = std::max(max_rows, group.n_rows);
  for (int rows : {8, 16, 32, kNarrowUnitRows}) {
    if (max_rows <= rows) return rows;
  }
  const WideUnits wide = WideUnitsOf(shape.format);
  return WideCost(shape, groups, wide.fewer) <= WideCost(shape, groups, wide.most) ? wide.fewer : wide.most;
}

}  // namespace

int64_t AssignUnits(MatMulGroup* groups, int n_groups, GroupedMatMul* work) {
  const std::span<MatMulGroup> all(groups, n_groups);
  work->unit_rows = ChooseUnitRows(work->shape, all);
  const int n_places = UnitPlaces(work->shape, work->unit_rows);
  int64_t row = 0;
  int unit = 0;
  for (MatMulGroup& group : all) {
    group.first_row = row;
    group.first_unit = unit;
    row += RoundUp(group.n_rows, kRowsAlign);
    unit += n_places * CutRows(work->shape.format, work->unit_rows, group.n_rows).n_units;
  }
  work->n_units = unit;
  work->n_groups = n_groups;
  return row;
}

int64_t ExpectUnits(int n_rows, int top_k, int n_experts, GroupedMatMul* work) {
  const int64_t n_visits = int64_t{n_rows} * top_k;
  const double mean = static_cast<double>(n_visits) / n_experts;
  // Counts scatter by about the root of their mean. A group that has more rows than its unit is cut, which
  // costs some time and changes no bits.
  const int most = static_cast<int>(std::min<double>(n_rows, std::ceil(mean + 2 * std::sqrt(mean))));
  std::vector<MatMulGroup> expected(n_experts);
  for (MatMulGroup& group : expected) group.n_rows = static_cast<int>(std::ceil(mean));
  expected[0].n_rows = most;
  work->unit_rows = ChooseUnitRows(work->shape, expected);
  const int64_t n_groups = std::min<int64_t>(n_experts, n_visits);
  work->n_groups = static_cast<int>(n_groups);
  work->n_units = static_cast<int>(UnitPlaces(work->shape, work->unit_rows) *
                                   (n_groups + n_visits / work->unit_rows));
  return n_visits + n_groups * (kRowsAlign - 1);
}

cudaError_t Launch(const GroupedMatMul& work, cudaStream_t stream) {
  if (work.n_units == 0) return cudaSuccess;
  const bool gated = work.epilogue == Epilogue::kGatedActivations;
  if (work.groups == nullptr || work.turns == nullptr || work.x == nullptr ||
      gated != work.shape.two_matrices || (gated ? work.activations == nullptr : work.y == nullptr) ||
      work.y_stride < 0 || work.y_stride >= kMaxYStride) {
    return cudaErrorInvalidValue;
  }
  int device = 0, major = 0, n_processors = 0;
  cudaError_t error = cudaGetDevice(&device);
  if (error == cudaSuccess) {
    error = cudaDeviceGetAttribute(&major, cudaDevAttrComputeCapabilityMajor, device);
  }
  if (error == cudaSuccess) {
    error = cudaDeviceGetAttribute(&n_processors, cudaDevAttrMultiProcessorCount, device);
  }
  if (error != cudaSuccess) return error;
  if (major < 8) return cudaErrorNoKernelImageForDevice;
  return major == 9 ? LaunchSm90(work, n_processors, stream) : LaunchSm80(work, stream);
}

cudaError_t GatherActivations(const float* x, const int32_t* sources, const MatMulGroup* groups,
                              int n_groups, int64_t n_rows, int64_t n_in, void* activations,
                              cudaStream_t stream, const GroupCounts* counts) {
  if (n_rows == 0) return cudaSuccess;
  constexpr int64_t kWarps = 8;  // of a block
  // Few rows are cut, since a warp alone takes long for one; many are enough to fill a device.
  constexpr int64_t kEnough = 2048;
  const int64_t most = RoundUp(n_in, kInputsAlign) / (8 * 32);
  const int n_slices = static_cast<int>(std::clamp<int64_t>(kEnough / n_rows, 1, std::max<int64_t>(most, 1)));
  const bool whole = n_in % 4 == 0 && reinterpret_cast<uintptr_t>(x) % 16 == 0;
  return LaunchKernel(whole ? GatherKernel<true> : GatherKernel<false>,
                      {.n_blocks = (n_rows * n_slices + kWarps - 1) / kWarps,
                       .n_threads = kWarps * 32,
                       .overlaps = kMayOverlap},
                      stream,
                      GatherArgs{.x = x,
                                 .sources = sources,
                                 .groups = groups,
                                 .n_groups = n_groups,
                                 .n_rows = n_rows,
                                 .n_in = n_in,
                                 .activations = static_cast<char*>(activations),
                                 .counts = counts,
                                 .n_slices = n_slices});
}

}  // namespace gatefold::cuda
