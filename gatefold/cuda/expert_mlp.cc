#include "gatefold/cuda/expert_mlp.h"

#include <algorithm>
#include <vector>

#include "gatefold/cuda/cuda_macros.h"
#include "gatefold/cuda/grouped_matmul_plan.h"

namespace gatefold::cuda {
namespace {

// Every group may need up to 7 rows of padding.
int64_t PaddedRows(int n_visits, int64_t n_rows) { return n_rows + int64_t{kRowsAlign - 1} * n_visits; }

// A batch's plan, in one piece: groups of either product, then per row where it comes from and where
// it goes.
struct PlanLayout {
  PlanLayout(int n_visits, int64_t padded_rows)
      : down_groups_at(n_visits * sizeof(MatMulGroup)),
        sources_at(2 * down_groups_at),
        slots_at(sources_at + padded_rows * sizeof(int32_t)),
        bytes(slots_at + padded_rows * sizeof(int32_t)) {}
  const size_t down_groups_at, sources_at, slots_at, bytes;
};

}  // namespace

std::vector<const ExpertVisits*> WidestFirst(WeightFormat format, const ExpertVisits* visits, int n) {
  std::vector<const ExpertVisits*> order;
  int most_rows = 0;
  for (int i = 0; i < n; ++i) {
    order.push_back(&visits[i]);
    most_rows = std::max(most_rows, visits[i].n_rows);
  }
  if (most_rows <= kNarrowUnitRows) return order;
  const auto widest = [format](const ExpertVisits* visit) {
    return WidestUnit(format, WideUnitsOf(format).most, visit->n_rows);
  };
  std::stable_sort(order.begin(), order.end(),
                   [&](const auto* a, const auto* b) { return widest(a) > widest(b); });
  return order;
}

ExpertMlp::~ExpertMlp() {
  cudaFree(activations_);
  cudaFree(plan_);
  cudaFreeHost(plan_host_);
  if (plan_sent_ != nullptr) cudaEventDestroy(plan_sent_);
}

cudaError_t ExpertMlp::Reserve(int n_visits, int64_t n_rows) {
  if (plan_sent_ == nullptr) {
    GF_CUDA_RETURN_IF_ERROR(cudaEventCreateWithFlags(&plan_sent_, cudaEventDisableTiming));
  }
  GF_CUDA_RETURN_IF_ERROR(turns_.ReserveZeros(sizeof(UnitTurns)));
  if (n_visits <= capacity_visits_ && n_rows <= capacity_rows_) return cudaSuccess;
  // What is large enough stays so: else one visit more each time would double the rows.
  const int visits =
      n_visits <= capacity_visits_ ? capacity_visits_ : std::max({n_visits, 2 * capacity_visits_, 16});
  const int64_t rows = n_rows <= capacity_rows_
                           ? capacity_rows_
                           : RoundUp(std::max<int64_t>({n_rows, 2 * capacity_rows_, 256}), kRowsAlign);
  cudaFree(activations_);
  cudaFree(plan_);
  cudaFreeHost(plan_host_);
  activations_ = plan_ = plan_host_ = nullptr;
  capacity_rows_ = capacity_visits_ = 0;
  const size_t plan_bytes = PlanLayout(visits, rows).bytes;
  GF_CUDA_RETURN_IF_ERROR(cudaMallocHost(&plan_host_, plan_bytes));
  GF_CUDA_RETURN_IF_ERROR(cudaMalloc(&plan_, plan_bytes));
  GF_CUDA_RETURN_IF_ERROR(cudaMalloc(&activations_, ActivationBytes(rows, shape_.d_model) +
                                                        ActivationBytes(rows, shape_.d_ff)));
  capacity_rows_ = rows;
  capacity_visits_ = visits;
  return cudaSuccess;
}

cudaError_t ExpertMlp::Run(const ExpertVisits* visits, int n_visits, const float* x, float* y,
                           cudaStream_t stream) {
  int64_t n_rows = 0;
  for (int i = 0; i < n_visits; ++i) n_rows += visits[i].n_rows;
  if (n_rows == 0) return cudaSuccess;
  if (plan_sent_ != nullptr) GF_CUDA_RETURN_IF_ERROR(cudaEventSynchronize(plan_sent_));
  const int64_t most_padded = PaddedRows(n_visits, n_rows);
  GF_CUDA_RETURN_IF_ERROR(Reserve(n_visits, most_padded));

  const PlanLayout layout(n_visits, most_padded);
  auto* up_groups = reinterpret_cast<MatMulGroup*>(plan_host_);
  auto* down_groups = reinterpret_cast<MatMulGroup*>(plan_host_ + layout.down_groups_at);
  auto* sources = reinterpret_cast<int32_t*>(plan_host_ + layout.sources_at);
  auto* slots = reinterpret_cast<int32_t*>(plan_host_ + layout.slots_at);
  const std::vector<const ExpertVisits*> order = WidestFirst(shape_.format, visits, n_visits);
  for (int i = 0; i < n_visits; ++i) {
    const DeviceExpert& expert = *order[i]->expert;
    up_groups[i] = {expert.w13, expert.b1, expert.b3, 0, order[i]->n_rows, 0};
    down_groups[i] = {expert.w2, expert.b2, nullptr, 0, order[i]->n_rows, 0};
  }
  GroupedMatMul up, down;
  up.shape = shape_.w13();
  up.epilogue = Epilogue::kGatedActivations;
  down.shape = shape_.w2();
  const int64_t padded = AssignUnits(up_groups, n_visits, &up);
  AssignUnits(down_groups, n_visits, &down);
  std::fill_n(sources, padded, -1);
  std::fill_n(slots, padded, 0);  // never read: padding rows are not stored
  for (int i = 0; i < n_visits; ++i) {
    std::copy_n(order[i]->rows, order[i]->n_rows, sources + up_groups[i].first_row);
    std::copy_n(order[i]->slots, order[i]->n_rows, slots + up_groups[i].first_row);
  }
  GF_CUDA_RETURN_IF_ERROR(
      cudaMemcpyAsync(plan_, plan_host_, layout.bytes, cudaMemcpyHostToDevice, stream));
  GF_CUDA_RETURN_IF_ERROR(cudaEventRecord(plan_sent_, stream));

  char* between = activations_ + ActivationBytes(capacity_rows_, shape_.d_model);
  up.turns = down.turns = reinterpret_cast<UnitTurns*>(turns_.get());
  up.groups = reinterpret_cast<const MatMulGroup*>(plan_);
  up.x = activations_;
  up.activations = between;
  down.groups = reinterpret_cast<const MatMulGroup*>(plan_ + layout.down_groups_at);
  down.x = between;
  down.y = y;
  down.y_stride = shape_.d_model;
  down.slots = reinterpret_cast<const int32_t*>(plan_ + layout.slots_at);
  GF_CUDA_RETURN_IF_ERROR(GatherActivations(x, reinterpret_cast<const int32_t*>(plan_ + layout.sources_at),
                                            up.groups, n_visits, padded, shape_.d_model, activations_,
                                            stream));
  GF_CUDA_RETURN_IF_ERROR(Launch(up, stream));
  return Launch(down, stream);
}

}  // namespace gatefold::cuda
