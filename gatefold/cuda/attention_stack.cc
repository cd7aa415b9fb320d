#include "gatefold/cuda/attention_stack.h"

#include <algorithm>
#include <vector>

#include "gatefold/cuda/cuda_macros.h"
#include "gatefold/cuda/rows.h"

namespace gatefold::cuda {
namespace {

// What parts of split contexts may take; rows past it are attended by fewer blocks, and as well.
constexpr size_t kMaxPartsBytes = size_t{256} << 20;

}  // namespace

cudaError_t AttentionStack::Prepare() {
  const AttentionModelShape& shape = weights_->shape();
  if (!shape.IsServed() || n_kv_blocks_ <= 0) return cudaErrorInvalidValue;
  int device = 0;
  GF_CUDA_RETURN_IF_ERROR(cudaGetDevice(&device));
  GF_CUDA_RETURN_IF_ERROR(
      cudaDeviceGetAttribute(&limits_.n_multiprocessors, cudaDevAttrMultiProcessorCount, device));
  GF_CUDA_RETURN_IF_ERROR(ChooseAttentionKernels(&limits_.kernels));
  limits_.max_slots = std::min<int64_t>(
      limits_.max_slots, kMaxPartsBytes / AttentionWorkspaceBytes(shape.attention, 1));
  GF_CUDA_RETURN_IF_ERROR(kv_.Reserve(shape.KvBlockBytes() * n_kv_blocks_));

  std::vector<MatMulGroup> groups;
  for (int n = 1; n <= kMaxLogitRows; ++n) {
    groups.push_back({weights_->lm_head(), nullptr, nullptr, 0, n, 0});
  }
  GF_CUDA_RETURN_IF_ERROR(turns_.ReserveZeros(sizeof(UnitTurns)));
  const size_t bytes = groups.size() * sizeof(MatMulGroup);
  GF_CUDA_RETURN_IF_ERROR(logit_groups_.Reserve(bytes));
  GF_CUDA_RETURN_IF_ERROR(
      cudaMemcpy(logit_groups_.get(), groups.data(), bytes, cudaMemcpyHostToDevice));
  return cudaDeviceSynchronize();  // a stream does not wait for such a copy
}

cudaError_t AttentionStack::Upload(std::span<const SequenceRows> sequences,
                                   const int32_t* token_ids, AttentionStep* step,
                                   cudaStream_t stream) const {
  return step->Upload(*weights_, sequences, token_ids, limits_, stream);
}

cudaError_t AttentionStack::Reserve(int n_rows, int64_t n_slots) {
  const AttentionModelShape& shape = weights_->shape();
  const size_t parts = AttentionWorkspaceBytes(shape.attention, n_slots);
  if (parts > parts_.bytes()) GF_CUDA_RETURN_IF_ERROR(parts_.Reserve(parts + parts / 2));
  if (n_rows <= capacity_rows_) return cudaSuccess;
  capacity_rows_ = 0;
  const int64_t rows = RoundUp(rows_memory_.bytes() == 0 ? n_rows : n_rows + n_rows / 2, kRowsAlign);
  const size_t activations =
      std::max(ActivationBytes(rows, shape.d_model), ActivationBytes(rows, shape.q_width()));
  const size_t products = rows * std::max(shape.qkv_width(), shape.d_model) * sizeof(float);
  const size_t q = rows * shape.q_width() * sizeof(__nv_bfloat16);
  // Widths are multiples of 8 and rows, too: all pieces are aligned to 128 bytes.
  GF_CUDA_RETURN_IF_ERROR(rows_memory_.Reserve(activations + products + q));
  char* const memory = rows_memory_.get();
  work_.activations = memory;
  work_.products = reinterpret_cast<float*>(memory + activations);
  work_.q = reinterpret_cast<__nv_bfloat16*>(memory + activations + products);
  capacity_rows_ = static_cast<int>(rows);
  return cudaSuccess;
}

cudaError_t AttentionStack::Product(const TileShape& shape, const MatMulGroup* group, int n_rows,
                                    const void* x, float* y, cudaStream_t stream) const {
  GroupedMatMul work;
  work.shape = shape;
  MatMulGroup counted{.n_rows = n_rows};
  AssignUnits(&counted, 1, &work);
  work.turns = reinterpret_cast<UnitTurns*>(turns_.get());
  work.groups = group;
  work.x = x;
  work.y = y;
  work.y_stride = shape.n_out;
  return Launch(work, stream);
}

cudaError_t AttentionStack::EmbedAndAttend(const AttentionStep& step, float* x,
                                           cudaStream_t stream) {
  const AttentionModelShape& shape = weights_->shape();
  if (step.n_rows() == 0 || step.token_ids() == nullptr) return cudaErrorInvalidValue;
  GF_CUDA_RETURN_IF_ERROR(Embed(weights_->embedding(), shape.vocab_size, step.token_ids(), x,
                                step.n_rows(), shape.d_model, stream));
  return Attend(0, step, x, stream);
}

cudaError_t AttentionStack::Attend(int layer, const AttentionStep& step, float* x,
                                   cudaStream_t stream) {
  const AttentionModelShape& shape = weights_->shape();
  const int n = step.n_rows();
  if (n == 0 || x == nullptr || layer < 0 || layer >= shape.n_layers) return cudaErrorInvalidValue;
  GF_CUDA_RETURN_IF_ERROR(Reserve(n, step.plan().n_slots));
  DevicePlan plan = step.plan();
  plan.workspace = reinterpret_cast<float*>(parts_.get());

  GF_CUDA_RETURN_IF_ERROR(RmsNormActivations(x, weights_->layer(layer).norm, shape.norm_eps,
                                             work_.activations, n, shape.d_model, stream));
  GF_CUDA_RETURN_IF_ERROR(
      Product(shape.qkv(), step.qkv_group(layer), n, work_.activations, work_.products, stream));
  GF_CUDA_RETURN_IF_ERROR(RopeAppend(shape.attention, step.batch(), work_.products,
                                     shape.qkv_width(), weights_->rope(), work_.q, kv(layer),
                                     stream));
  if (shape.q_width() % kInputsAlign != 0) {  // 64 inputs that are not there: zeros
    const int64_t bytes = RoundUp(n, kRowsAlign) * kTileInputs * 2;
    char* const behind = work_.activations + shape.q_width() / kTileInputs * bytes;
    GF_CUDA_RETURN_IF_ERROR(cudaMemsetAsync(behind, 0, bytes, stream));
  }
  GF_CUDA_RETURN_IF_ERROR(Attention(shape.attention, step.batch(), plan, work_.q, kv(layer),
                                    nullptr, work_.activations, stream));
  GF_CUDA_RETURN_IF_ERROR(
      Product(shape.o(), step.o_group(layer), n, work_.activations, work_.products, stream));
  return AddRows(x, work_.products, n, shape.d_model, stream);
}

cudaError_t AttentionStack::Logits(const float* x, int n_rows, float* logits, cudaStream_t stream) {
  const AttentionModelShape& shape = weights_->shape();
  if (n_rows < 1 || n_rows > kMaxLogitRows || logits == nullptr) return cudaErrorInvalidValue;
  GF_CUDA_RETURN_IF_ERROR(Reserve(n_rows, 0));
  GF_CUDA_RETURN_IF_ERROR(RmsNormActivations(x, weights_->final_norm(), shape.norm_eps,
                                             work_.activations, n_rows, shape.d_model, stream));
  const auto* group = reinterpret_cast<const MatMulGroup*>(logit_groups_.get()) + (n_rows - 1);
  return Product(shape.lm_head(), group, n_rows, work_.activations, logits, stream);
}

}  // namespace gatefold::cuda
