#include "gatefold/cuda/visit_plan.h"

#include "gatefold/cuda/block_sum.cuh"
#include "gatefold/cuda/grouped_matmul_plan.h"
#include "gatefold/cuda/launch.h"
#include "gatefold/cuda/warp_ops.h"

namespace gatefold::cuda {
namespace {

constexpr int kThreads = 256;
constexpr int kWarps = kThreads / kWarp;

struct Args {
  const DeviceExpert* experts;
  const int32_t* routes;
  int n_routes;
  int n_experts;
  int top_k;
  WeightFormat format;
  int up_unit_rows, up_places;
  int down_unit_rows, down_places;
  VisitPlan plan;
  uint64_t* n_visits;
};

// What lies before an expert's group.
struct Offsets {
  int experts = 0, groups = 0, rows = 0, up_units = 0, down_units = 0;
};

__device__ __forceinline__ void Count(const Args& args, int n_rows, Offsets* offsets) {
  offsets->experts += 1;
  if (n_rows == 0) return;
  offsets->groups += 1;
  offsets->rows += static_cast<int>(RoundUp(n_rows, kRowsAlign));
  offsets->up_units += args.up_places * CutRows(args.format, args.up_unit_rows, n_rows).n_units;
  offsets->down_units += args.down_places * CutRows(args.format, args.down_unit_rows, n_rows).n_units;
}

// Puts the expert's rows, in ascending order, from row `first` of all groups on.
__device__ void Place(const Args& args, int expert, int first) {
  __shared__ int counts[kWarps];  // by warp, of this turn
  const int warp = static_cast<int>(threadIdx.x) / kWarp, lane = static_cast<int>(threadIdx.x) % kWarp;
  int placed = first;
  for (int begin = 0; begin < args.n_routes; begin += kThreads) {
    const int route = begin + static_cast<int>(threadIdx.x);
    const bool mine = route < args.n_routes && args.routes[route] == expert;
    const unsigned lanes = __ballot_sync(kAllLanes, mine);
    __syncthreads();  // the counts of the turn before have been read
    if (lane == 0) counts[warp] = __popc(lanes);
    __syncthreads();
    int at = placed + __popc(lanes & ((1u << lane) - 1));
    for (int i = 0; i < kWarps; ++i) {
      if (i < warp) at += counts[i];
      placed += counts[i];
    }
    if (mine) {
      args.plan.sources[at] = route / args.top_k;
      args.plan.slots[at] = route;
    }
  }
  const int end = first + static_cast<int>(RoundUp(placed - first, kRowsAlign));
  if (placed + static_cast<int>(threadIdx.x) < end) {
    args.plan.sources[placed + threadIdx.x] = -1;
    args.plan.slots[placed + threadIdx.x] = 0;  // never read: padding rows are not stored
  }
}

// A block per expert, each of which counts all routes: so none waits for another.
__global__ void __launch_bounds__(kThreads) PlanKernel(const __grid_constant__ Args args) {
  BeginOverlapping();
  GATEFOLD_DYNAMIC_SHARED(int, counts);  // [n_experts]
  const int expert = static_cast<int>(blockIdx.x);
  for (int i = threadIdx.x; i < args.n_experts; i += kThreads) counts[i] = 0;
  __syncthreads();
  for (int i = threadIdx.x; i < args.n_routes; i += kThreads) atomicAdd(&counts[args.routes[i]], 1);
  __syncthreads();
  const int n_rows = counts[expert];
  const auto widest = [&](int i) { return WidestUnit(args.format, args.down_unit_rows, counts[i]); };
  const int my_widest = widest(expert);
  Offsets mine;
  for (int i = threadIdx.x; i < args.n_experts; i += kThreads) {
    const int its_widest = widest(i);
    if (its_widest > my_widest || (its_widest == my_widest && i < expert)) Count(args, counts[i], &mine);
  }
  Offsets before;
  before.experts = BlockSum<kThreads>(mine.experts);
  before.groups = BlockSum<kThreads>(mine.groups);
  before.rows = BlockSum<kThreads>(mine.rows);
  before.up_units = BlockSum<kThreads>(mine.up_units);
  before.down_units = BlockSum<kThreads>(mine.down_units);
  if (threadIdx.x == 0) {
    if (n_rows > 0) {
      const DeviceExpert weights = args.experts[expert];
      args.plan.up[before.groups] = {weights.w13, weights.b1, weights.b3, before.rows, n_rows,
                                     before.up_units};
      args.plan.down[before.groups] = {weights.w2, weights.b2, nullptr, before.rows, n_rows,
                                       before.down_units};
      args.n_visits[expert] += n_rows;
    }
    if (before.experts == args.n_experts - 1) {
      Offsets all = before;
      Count(args, n_rows, &all);
      *args.plan.up_counts = {all.groups, all.up_units, all.rows};
      *args.plan.down_counts = {all.groups, all.down_units, all.rows};
    }
  }
  if (n_rows > 0) Place(args, expert, before.rows);
}

}  // namespace

cudaError_t PlanVisits(const DeviceExpert* experts, int n_experts, const int32_t* routes, int64_t n_rows,
                       int top_k, const GroupedMatMul& up, const GroupedMatMul& down, const VisitPlan& plan,
                       uint64_t* n_visits, cudaStream_t stream) {
  if (experts == nullptr || routes == nullptr || n_visits == nullptr || plan.up == nullptr ||
      plan.down == nullptr || plan.up_counts == nullptr || plan.down_counts == nullptr ||
      plan.sources == nullptr || plan.slots == nullptr || n_experts < 1 || n_experts > kMaxVisitExperts ||
      n_rows < 0 || n_rows * top_k > INT32_MAX - kThreads) {
    return cudaErrorInvalidValue;
  }
  if (n_rows == 0) return cudaSuccess;
  return LaunchKernel(PlanKernel,
                      {.n_blocks = n_experts,
                       .n_threads = kThreads,
                       .shared_bytes = static_cast<int>(n_experts * sizeof(int)),
                       .overlaps = kMayOverlap},
                      stream,
                      Args{.experts = experts,
                           .routes = routes,
                           .n_routes = static_cast<int>(n_rows * top_k),
                           .n_experts = n_experts,
                           .top_k = top_k,
                           .format = up.shape.format,
                           .up_unit_rows = up.unit_rows,
                           .up_places = UnitPlaces(up.shape, up.unit_rows),
                           .down_unit_rows = down.unit_rows,
                           .down_places = UnitPlaces(down.shape, down.unit_rows),
                           .plan = plan,
                           .n_visits = n_visits});
}

}  // namespace gatefold::cuda
