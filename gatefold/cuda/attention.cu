#include "gatefold/cuda/alignment.h"
#include "gatefold/cuda/attention.h"
#include "gatefold/cuda/attention_kernels.h"
#include "gatefold/cuda/cuda_macros.h"

namespace gatefold::cuda {
namespace {

constexpr float kLog2E = 1.4426950408889634f;

bool IsUsable(const AttentionShape& shape, const RowBatch& rows) {
  return shape.IsServed() && rows.n_rows > 0 && rows.positions != nullptr &&
         rows.sequences != nullptr && IsAligned(rows.block_tables) && rows.table_stride > 0 &&
         rows.table_stride % 4 == 0;
}

cudaError_t Launch(const AttentionShape& shape, const DevicePlan& plan, AttentionArgs args,
                   cudaStream_t stream) {
  if (plan.kernels == AttentionKernels::kHopper) {
    GF_CUDA_RETURN_IF_ERROR(
        LaunchHopperNarrow(shape.head_dim, plan.narrow_pairs, args, plan.n_narrow, stream));
    args.first_worker = plan.n_narrow;
    return LaunchHopperWide(shape.head_dim, args, plan.n_wide, stream);
  }
  GF_CUDA_RETURN_IF_ERROR(LaunchNarrow(shape.head_dim, args, plan.n_narrow, stream));
  args.first_worker = plan.n_narrow;
  return LaunchWide(shape.head_dim, args, plan.n_wide, stream);
}

}  // namespace

DevicePlan ViewPlan(const AttentionPlan& plan, void* packed, void* workspace) {
  auto* const segments = static_cast<AttentionSegment*>(packed);
  auto* const row_slots = reinterpret_cast<int32_t*>(segments + plan.segments.size());
  return {.kernels = plan.kernels,
          .segments = segments,
          .n_narrow = plan.n_narrow,
          .n_wide = plan.n_wide,
          .narrow_pairs = plan.narrow_pairs,
          .row_slots = row_slots,
          .counters = row_slots + plan.row_slots.size(),
          .workspace = static_cast<float*>(workspace),
          .n_slots = plan.n_slots};
}

cudaError_t ChooseAttentionKernels(AttentionKernels* kernels) {
  int device = 0, major = 0;
  GF_CUDA_RETURN_IF_ERROR(cudaGetDevice(&device));
  GF_CUDA_RETURN_IF_ERROR(
      cudaDeviceGetAttribute(&major, cudaDevAttrComputeCapabilityMajor, device));
  *kernels = major == 9 ? AttentionKernels::kHopper : AttentionKernels::kAny;
  return cudaSuccess;
}

cudaError_t Attention(const AttentionShape& shape, const RowBatch& rows, const DevicePlan& plan,
                      const __nv_bfloat16* q, const __nv_bfloat16* kv, float* out,
                      void* activations, cudaStream_t stream) {
  if (!IsUsable(shape, rows) || !IsAligned(plan.segments) || plan.row_slots == nullptr ||
      !IsAligned(q) || !IsAligned(kv) || (out == nullptr) == (activations == nullptr) ||
      !IsAligned(out != nullptr ? out : activations) ||
      (plan.n_slots > 0 && !IsAligned(plan.workspace))) {
    return cudaErrorInvalidValue;
  }
  float* const part_values = plan.workspace;
  float2* const part_sums =
      reinterpret_cast<float2*>(part_values + plan.n_slots * shape.n_heads * shape.head_dim);
  const AttentionArgs args = {.segments = plan.segments,
                              .first_worker = 0,
                              .positions = rows.positions,
                              .block_tables = rows.block_tables,
                              .table_stride = rows.table_stride,
                              .row_slots = plan.row_slots,
                              .counters = plan.counters,
                              .n_heads = shape.n_heads,
                              .n_kv_heads = shape.n_kv_heads,
                              .group = shape.group(),
                              .group_inverse = (65536 + shape.group() - 1) / shape.group(),
                              .window = shape.window,
                              .scale_log2 = shape.scale * kLog2E,
                              .q = q,
                              .kv = kv,
                              .out = out,
                              .activations = static_cast<char*>(activations),
                              .n_rounded = RoundUp(rows.n_rows, kRowsAlign),
                              .part_values = part_values,
                              .part_sums = part_sums};
  return Launch(shape, plan, args, stream);
}

}  // namespace gatefold::cuda
