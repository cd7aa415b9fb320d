#pragma once

#include <cuda_bf16.h>

#include <algorithm>
#include <cmath>
#include <memory>
#include <numeric>
#include <random>
#include <vector>

#include "gatefold/cuda/attention.h"
#include "tests/gpu/gpu_test.h"

namespace gatefold::cuda {

// Projections of all positions of some sequences, drawn at random, and the tables of rope.
struct Prompts {
  Prompts(const AttentionShape& shape, std::vector<int> lengths, uint64_t seed)
      : shape(shape), lengths(std::move(lengths)) {
    for (size_t s = 0; s < this->lengths.size(); ++s) {
      qkv.push_back(RandomFloats(static_cast<size_t>(this->lengths[s]) * width(), 1, seed + s));
    }
    const int half = shape.head_dim / 2;
    const int n = *std::max_element(this->lengths.begin(), this->lengths.end());
    for (int p = 0; p < n; ++p) {
      for (int i = 0; i < half; ++i) {
        const float angle = static_cast<float>(p) * std::pow(1e4f, -static_cast<float>(i) / half);
        cos.push_back(std::cos(angle));
        sin.push_back(std::sin(angle));
      }
    }
  }

  int width() const { return (shape.n_heads + 2 * shape.n_kv_heads) * shape.head_dim; }

  // A head of the row, of q, k and v in that order, as RopeAppend rounds it.
  std::vector<float> Head(int sequence, int position, int head) const {
    const int half = shape.head_dim / 2;
    const float* x = &qkv[sequence][static_cast<size_t>(position) * width() +
                                    static_cast<size_t>(head) * shape.head_dim];
    std::vector<float> turned(x, x + shape.head_dim);
    if (head < shape.n_heads + shape.n_kv_heads) {
      for (int i = 0; i < half; ++i) {
        const float c = cos[position * half + i], s = sin[position * half + i];
        // Volatile: each product is rounded, whatever the host compiler would like to contract.
        volatile float ac = x[i] * c, bs = x[i + half] * s, bc = x[i + half] * c, as = x[i] * s;
        turned[i] = ac - bs;
        turned[i + half] = bc + as;
      }
    }
    for (float& value : turned) value = RoundBF16(value);
    return turned;
  }

  AttentionShape shape;
  std::vector<int> lengths;
  std::vector<std::vector<float>> qkv;  // per sequence [length, width]
  std::vector<float> cos, sin;          // [longest, head_dim / 2]
};

// An empty cache with blocks dealt to the sequences in random order.
class Server {
 public:
  Server(const Prompts& prompts, uint64_t seed, const PlanLimits& limits = {})
      : prompts_(prompts),
        limits_(limits),
        stride_(TableStride(prompts)),
        table_(DealBlocks(seed)),
        table_device_(table_),
        cos_(prompts.cos),
        sin_(prompts.sin),
        kv_(CacheElements()) {}

  // One step: keeps the rows' keys and values, attends. Returns [n_rows, n_heads, head_dim].
  std::vector<float> Step(const std::vector<PlanRow>& rows) {
    DeviceArray<float> out(rows.size() * prompts_.shape.n_heads * prompts_.shape.head_dim);
    Run(rows, out.get(), nullptr);
    return out.Read();
  }
  // The same in bf16, out of activations.
  std::vector<uint16_t> StepBF16(const std::vector<PlanRow>& rows) {
    const int64_t width = int64_t{prompts_.shape.n_heads} * prompts_.shape.head_dim;
    const int64_t n_rounded = RoundUp(rows.size(), kRowsAlign);
    DeviceArray<uint16_t> activations(ActivationBytes(rows.size(), width) / 2);
    Run(rows, nullptr, activations.get());
    const std::vector<uint16_t> all = activations.Read();
    std::vector<uint16_t> out;
    for (size_t row = 0; row < rows.size(); ++row) {
      for (int64_t i = 0; i < width; ++i) {
        out.push_back(all[ActivationOffset(static_cast<int64_t>(row), i, n_rounded) / 2]);
      }
    }
    EXPECT_EQ(all.size() - std::count(all.begin(), all.end(), 0xffff), out.size());  // no more
    return out;
  }

  // Rotated queries of the last step.
  const std::vector<uint16_t>& q() const { return q_; }
  // The head's keys at a position in the cache, or its values, 16-bit elements.
  enum Part { kKeys, kValues };
  std::vector<uint16_t> Kept(Part part, int sequence, int position, int kv_head) const {
    const KvCacheLayout layout = {prompts_.shape.n_kv_heads, prompts_.shape.head_dim};
    const std::vector<uint16_t> all = kv_.Read();
    const int64_t block = table_[static_cast<size_t>(sequence) * stride_ + position / 16];
    const auto head =
        all.begin() + block * layout.BlockElements() + kv_head * layout.HeadElements() +
        (part == kValues ? layout.ValuesAt() : 0);
    std::vector<uint16_t> kept;
    for (int d = 0; d < layout.head_dim; ++d) kept.push_back(head[layout.Place(position % 16, d)]);
    return kept;
  }

 private:
  static int TableStride(const Prompts& prompts) {
    const int longest = *std::max_element(prompts.lengths.begin(), prompts.lengths.end());
    return ((longest + 15) / 16 + 3) / 4 * 4;
  }

  std::vector<int32_t> DealBlocks(uint64_t seed) {
    n_blocks_ = 3;  // some that nobody owns
    for (int length : prompts_.lengths) n_blocks_ += (length + 15) / 16;
    std::vector<int32_t> ids(n_blocks_);
    std::iota(ids.begin(), ids.end(), 0);
    std::shuffle(ids.begin(), ids.end(), std::mt19937_64(seed));
    // Beyond a sequence's end a table may hold anything.
    std::vector<int32_t> table(prompts_.lengths.size() * stride_, 0x7f7f7f7f);
    size_t dealt = 0;
    for (size_t s = 0; s < prompts_.lengths.size(); ++s) {
      const int n = (prompts_.lengths[s] + 15) / 16;
      for (int b = 0; b < n; ++b) table[s * stride_ + b] = ids[dealt++];
    }
    return table;
  }

  size_t CacheElements() const {
    return static_cast<size_t>(n_blocks_) *
           KvCacheLayout{prompts_.shape.n_kv_heads, prompts_.shape.head_dim}.BlockElements();
  }

  void Run(const std::vector<PlanRow>& rows, float* out, void* activations) {
    const AttentionShape& shape = prompts_.shape;
    const int width = prompts_.width();
    std::vector<int32_t> positions, sequences;
    std::vector<float> qkv;
    for (const PlanRow& row : rows) {
      positions.push_back(row.position);
      sequences.push_back(row.sequence);
      const float* from = &prompts_.qkv[row.sequence][static_cast<size_t>(row.position) * width];
      qkv.insert(qkv.end(), from, from + width);
    }
    const DeviceArray<int32_t> positions_device(positions), sequences_device(sequences);
    const DeviceArray<float> qkv_device(qkv);
    const DeviceArray<uint16_t> q(rows.size() * shape.n_heads * shape.head_dim);
    const RowBatch batch = {.n_rows = static_cast<int>(rows.size()),
                            .positions = positions_device.get(),
                            .sequences = sequences_device.get(),
                            .block_tables = table_device_.get(),
                            .table_stride = stride_};
    const AttentionPlan plan = PlanAttention(shape, rows, limits_);
    std::vector<unsigned char> packed(plan.PackedBytes());
    plan.Pack(packed.data());
    DeviceArray<unsigned char> plan_device(packed);
    const DeviceArray<unsigned char> workspace(AttentionWorkspaceBytes(shape, plan.n_slots));
    auto* const q16 = reinterpret_cast<__nv_bfloat16*>(q.get());
    auto* const kv = reinterpret_cast<__nv_bfloat16*>(kv_.get());
    EXPECT_CUDA(RopeAppend(shape, batch, qkv_device.get(), width, {cos_.get(), sin_.get()}, q16,
                           kv, nullptr));
    EXPECT_CUDA(Attention(shape, batch, ViewPlan(plan, plan_device.get(), workspace.get()), q16,
                          kv, out, activations, nullptr));
    q_ = q.Read();
  }

  const Prompts& prompts_;
  const PlanLimits limits_;
  const int stride_;
  int n_blocks_ = 0;
  const std::vector<int32_t> table_;  // [n_sequences, stride]
  const DeviceArray<int32_t> table_device_;
  const DeviceArray<float> cos_, sin_;
  DeviceArray<uint16_t> kv_;
  std::vector<uint16_t> q_;
};

// Rows [begin, end) of one sequence.
inline std::vector<PlanRow> Span(int sequence, int begin, int end) {
  std::vector<PlanRow> rows;
  for (int p = begin; p < end; ++p) rows.push_back({p, sequence});
  return rows;
}

}  // namespace gatefold::cuda
