#include "gatefold/cuda/attention_step.h"

#include <algorithm>
#include <cstring>
#include <map>
#include <vector>

#include "gatefold/cuda/cuda_macros.h"

namespace gatefold::cuda {
namespace {

constexpr int kBlockTokens = KvCacheLayout::kBlockTokens;

int NumBlocks(const SequenceRows& rows) {
  return (rows.first_position + rows.n_rows - 1) / kBlockTokens + 1;
}

// Where the pieces of an upload lie, each aligned to 16 bytes.
struct UploadLayout {
  size_t Add(size_t bytes) {
    const size_t at = total;
    total += static_cast<size_t>(RoundUp(static_cast<int64_t>(bytes), 16));
    return at;
  }
  size_t total = 0;
};

bool AreValid(std::span<const SequenceRows> sequences, int max_positions) {
  int64_t n_rows = 0;
  for (const SequenceRows& rows : sequences) {
    if (rows.block_table == nullptr || rows.n_rows <= 0 || rows.first_position < 0 ||
        int64_t{rows.first_position} + rows.n_rows > max_positions) {
      return false;
    }
    n_rows += rows.n_rows;
  }
  return n_rows > 0 && n_rows <= INT32_MAX - kRowsAlign;
}

}  // namespace

AttentionStep::~AttentionStep() {
  cudaFreeHost(host_);
  if (sent_ != nullptr) cudaEventDestroy(sent_);
}

cudaError_t AttentionStep::Reserve(size_t bytes) {
  if (sent_ == nullptr) {
    GF_CUDA_RETURN_IF_ERROR(cudaEventCreateWithFlags(&sent_, cudaEventDisableTiming));
  } else {
    GF_CUDA_RETURN_IF_ERROR(cudaEventSynchronize(sent_));
  }
  if (bytes > host_bytes_) {
    cudaFreeHost(host_);
    host_ = nullptr;
    host_bytes_ = 0;
    GF_CUDA_RETURN_IF_ERROR(cudaMallocHost(&host_, bytes + bytes / 2));
    host_bytes_ = bytes + bytes / 2;
  }
  return device_.Reserve(host_bytes_);
}

cudaError_t AttentionStep::Upload(const AttentionWeights& weights,
                                  std::span<const SequenceRows> sequences, const int32_t* token_ids,
                                  const PlanLimits& limits, cudaStream_t stream) {
  const AttentionModelShape& shape = weights.shape();
  batch_ = {};  // nothing, until it is there
  if (!AreValid(sequences, shape.max_positions)) return cudaErrorInvalidValue;
  std::vector<PlanRow> rows;
  // Runs of one sequence have one number, so that the plan knows which of its positions are new.
  std::map<const int32_t*, int32_t> numbers;
  int n_blocks = 0;
  for (const SequenceRows& run : sequences) {
    const int32_t number =
        numbers.insert({run.block_table, static_cast<int32_t>(numbers.size())}).first->second;
    for (int i = 0; i < run.n_rows; ++i) rows.push_back({run.first_position + i, number});
    n_blocks = std::max(n_blocks, NumBlocks(run));
  }
  const int n_rows = static_cast<int>(rows.size());
  const int stride = static_cast<int>(RoundUp(n_blocks, 4));
  const AttentionPlan plan = PlanAttention(shape.attention, rows, limits);

  UploadLayout layout;
  const size_t plan_at = layout.Add(plan.PackedBytes());
  const size_t groups_at = layout.Add(2 * shape.n_layers * sizeof(MatMulGroup));
  const size_t tables_at = layout.Add(numbers.size() * stride * sizeof(int32_t));
  const size_t positions_at = layout.Add(n_rows * sizeof(int32_t));
  const size_t sequences_at = layout.Add(n_rows * sizeof(int32_t));
  const size_t tokens_at = layout.Add(token_ids == nullptr ? 0 : n_rows * sizeof(int32_t));
  GF_CUDA_RETURN_IF_ERROR(Reserve(layout.total));

  const auto ints = [this](size_t at) { return reinterpret_cast<int32_t*>(host_ + at); };
  plan.Pack(host_ + plan_at);
  auto* const groups = reinterpret_cast<MatMulGroup*>(host_ + groups_at);
  for (int l = 0; l < shape.n_layers; ++l) {
    const AttentionWeights::Layer& layer = weights.layer(l);
    groups[2 * l] = {layer.qkv, layer.qkv_bias, nullptr, 0, n_rows, 0};
    groups[2 * l + 1] = {layer.o, layer.o_bias, nullptr, 0, n_rows, 0};
  }
  std::fill_n(ints(tables_at), numbers.size() * stride, 0);
  for (const SequenceRows& run : sequences) {
    std::copy_n(run.block_table, NumBlocks(run), ints(tables_at) + numbers[run.block_table] * stride);
  }
  for (int r = 0; r < n_rows; ++r) {
    ints(positions_at)[r] = rows[r].position;
    ints(sequences_at)[r] = rows[r].sequence;
  }
  if (token_ids != nullptr) std::copy_n(token_ids, n_rows, ints(tokens_at));
  GF_CUDA_RETURN_IF_ERROR(
      cudaMemcpyAsync(device_.get(), host_, layout.total, cudaMemcpyHostToDevice, stream));
  GF_CUDA_RETURN_IF_ERROR(cudaEventRecord(sent_, stream));

  const auto on_device = [this](size_t at) {
    return reinterpret_cast<const int32_t*>(device_.get() + at);
  };
  plan_ = ViewPlan(plan, device_.get() + plan_at, nullptr);
  groups_ = reinterpret_cast<const MatMulGroup*>(device_.get() + groups_at);
  token_ids_ = token_ids == nullptr ? nullptr : on_device(tokens_at);
  batch_ = {.n_rows = n_rows,
            .positions = on_device(positions_at),
            .sequences = on_device(sequences_at),
            .block_tables = on_device(tables_at),
            .table_stride = stride};
  return cudaSuccess;
}

}  // namespace gatefold::cuda
