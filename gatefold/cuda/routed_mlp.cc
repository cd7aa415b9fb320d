#include "gatefold/cuda/routed_mlp.h"

#include <algorithm>
#include <utility>

#include "gatefold/cuda/cuda_macros.h"

namespace gatefold::cuda {

cudaError_t RoutedMlp::Reserve(int n_groups, int64_t n_rows) {
  if (n_groups <= capacity_groups_ && n_rows <= capacity_rows_) return cudaSuccess;
  const int groups = std::max({n_groups, capacity_groups_, std::min(n_experts_, 64)});
  const int64_t wanted = activations_.bytes() == 0 ? n_rows : n_rows + n_rows / 2;
  const int64_t rows = RoundUp(std::max<int64_t>({wanted, capacity_rows_, 256}), kRowsAlign);
  capacity_groups_ = 0;
  capacity_rows_ = 0;
  const size_t group_bytes = groups * sizeof(MatMulGroup), row_bytes = rows * sizeof(int32_t);
  const size_t count_bytes = RoundUp(sizeof(GroupCounts), 16);
  GF_CUDA_RETURN_IF_ERROR(plan_memory_.Reserve(2 * (group_bytes + count_bytes + row_bytes)));
  GF_CUDA_RETURN_IF_ERROR(activations_.Reserve(ActivationBytes(rows, shape_.d_model) +
                                               ActivationBytes(rows, shape_.d_ff)));
  char* at = plan_memory_.get();
  const auto take = [&at](size_t bytes) { return std::exchange(at, at + bytes); };
  plan_.up = reinterpret_cast<MatMulGroup*>(take(group_bytes));
  plan_.down = reinterpret_cast<MatMulGroup*>(take(group_bytes));
  plan_.up_counts = reinterpret_cast<GroupCounts*>(take(count_bytes));
  plan_.down_counts = reinterpret_cast<GroupCounts*>(take(count_bytes));
  plan_.sources = reinterpret_cast<int32_t*>(take(row_bytes));
  plan_.slots = reinterpret_cast<int32_t*>(take(row_bytes));
  capacity_groups_ = groups;
  capacity_rows_ = rows;
  return cudaSuccess;
}

cudaError_t RoutedMlp::Prepare(int n_rows) {
  if (n_rows == prepared_rows_) return cudaSuccess;  // as all layers of a step
  prepared_rows_ = 0;
  up_.shape = shape_.w13();
  up_.epilogue = Epilogue::kGatedActivations;
  down_.shape = shape_.w2();
  most_rows_ = ExpectUnits(n_rows, top_k_, n_experts_, &up_);
  ExpectUnits(n_rows, top_k_, n_experts_, &down_);
  GF_CUDA_RETURN_IF_ERROR(Reserve(up_.n_groups, most_rows_));
  GF_CUDA_RETURN_IF_ERROR(turns_.ReserveZeros(sizeof(UnitTurns)));
  up_.turns = down_.turns = reinterpret_cast<UnitTurns*>(turns_.get());
  up_.groups = plan_.up;
  up_.counts = plan_.up_counts;
  up_.x = activations_.get();
  up_.activations = activations_.get() + ActivationBytes(capacity_rows_, shape_.d_model);
  down_.groups = plan_.down;
  down_.counts = plan_.down_counts;
  down_.x = up_.activations;
  down_.y_stride = shape_.d_model;
  down_.slots = plan_.slots;
  prepared_rows_ = n_rows;
  return cudaSuccess;
}

cudaError_t RoutedMlp::Run(const DeviceExpert* experts, const int32_t* routes, int n_rows, const float* x,
                           float* y, uint64_t* n_visits, cudaStream_t stream) {
  if (n_rows == 0) return cudaSuccess;
  GF_CUDA_RETURN_IF_ERROR(Prepare(n_rows));
  GF_CUDA_RETURN_IF_ERROR(
      PlanVisits(experts, n_experts_, routes, n_rows, top_k_, up_, down_, plan_, n_visits, stream));
  GF_CUDA_RETURN_IF_ERROR(GatherActivations(x, plan_.sources, plan_.up, up_.n_groups, most_rows_,
                                            shape_.d_model, activations_.get(), stream, plan_.up_counts));
  down_.y = y;
  GF_CUDA_RETURN_IF_ERROR(Launch(up_, stream));
  return Launch(down_, stream);
}

}  // namespace gatefold::cuda
