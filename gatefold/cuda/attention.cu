#include "gatefold/cuda/attention.h"

#include <climits>

#include "gatefold/cuda/attention_tile.h"
#include "gatefold/cuda/combine_parts.h"
#include "gatefold/cuda/launch.h"
#include "gatefold/cuda/softmax_parts.h"
#include "gatefold/cuda/warp_ops.h"

namespace gatefold::cuda {
namespace {

constexpr float kLog2E = 1.4426950408889634f;

struct AttentionArgs {
  const AttentionItem* items;
  const int32_t* positions;
  const int32_t* block_tables;
  int table_stride;
  const int32_t* row_slots;
  int n_heads;
  int n_kv_heads;
  int group;
  int window;
  float scale_log2;
  const __nv_bfloat16* q;
  const __nv_bfloat16* keys;
  const __nv_bfloat16* values;
  float* out;
  __nv_bfloat16* out_bf16;
  float* part_values;  // [n_slots, n_heads, head_dim]
  float2* part_sums;   // [n_slots, n_heads]: m, l
};

template <int kWarps>
__device__ __forceinline__ void SyncBlock() {
  if constexpr (kWarps == 1) {
    __syncwarp();
  } else {
    __syncthreads();
  }
}

// One thread block: a tile of query rows of one KV head against some chunks of its sequence.
// Keys and values of 64 positions at a time pass through two buffers each; three copies are under
// way while a fourth is used.
template <int kHeadDim, int kWarps>
class TileWork {
 public:
  static constexpr int kThreads = kWarps * kWarp;
  static constexpr int kTileBytes = kTileTokens * kHeadDim * 2;
  static constexpr int kSharedBytes = 4 * kTileBytes + kThreads * (kHeadDim / 2) * 4;

  __device__ __forceinline__ TileWork(const AttentionArgs& args, unsigned char* shared)
      : args_(args),
        shared_(SharedAddress(shared)),
        merged_(reinterpret_cast<float*>(shared + 4 * kTileBytes)),
        item_(args.items[blockIdx.x / args.n_kv_heads]),
        kv_head_(static_cast<int>(blockIdx.x) % args.n_kv_heads) {}

  __device__ __forceinline__ void Run() {
    if (item_.n_rows == 0) return;
    const int end = (item_.first_chunk + item_.n_chunks) * kChunkTokens;
    lo_ = max(FirstPosition(args_.window, item_.min_position), item_.first_chunk * kChunkTokens);
    hi_ = min(item_.max_position, end - 1);
    const int first_tile = lo_ / kTileTokens;
    last_tile_ = hi_ / kTileTokens;
    table_ = args_.block_tables + static_cast<int64_t>(item_.sequence) * args_.table_stride;
    int blocks[4], later[4];
    ReadTable(first_tile, blocks);
    ReadTable(first_tile + 1, later);
    StartKeys(first_tile, 0, blocks);
    StartValues(first_tile, 0, blocks);
    StartKeys(first_tile + 1, 1, later);
    LoadRows();
    for (int tile = first_tile; tile <= last_tile_; ++tile) {
      const int buffer = (tile - first_tile) & 1;
#pragma unroll
      for (int i = 0; i < 4; ++i) blocks[i] = later[i];
      ReadTable(tile + 2, later);
      OneTile(tile, buffer, blocks, later);
      if (tile == last_tile_ || (tile + 1) % (kChunkTokens / kTileTokens) == 0) {
        EndChunk(tile / (kChunkTokens / kTileTokens), tile == last_tile_);
      }
    }
  }

 private:
  // blocks: of tile + 1. later: of tile + 2.
  __device__ __forceinline__ void OneTile(int tile, int buffer, const int (&blocks)[4],
                                          const int (&later)[4]) {
    const int first = tile * kTileTokens;
    const int last = first + kTileTokens - 1;
    const bool active = first <= max_last_ && last >= min_first_;
    const bool mask = last > min_last_ || first < max_first_;
    uint32_t p[4][4];
    WaitForCopies<2>();
    SyncBlock<kWarps>();  // keys are there; the values before these are used
    StartValues(tile + 1, buffer ^ 1, blocks);
    if (active) {
      float s[8][4];
      Score(rows_, Keys(buffer), s);
      Weigh(rows_, s, args_.scale_log2, first, mask, p);
    }
    WaitForCopies<2>();
    SyncBlock<kWarps>();  // values are there; the keys are used
    StartKeys(tile + 2, buffer, later);
    if (active) Gather(rows_, p, Values(buffer));
  }

  __device__ __forceinline__ uint32_t Keys(int buffer) const {
    return shared_ + buffer * kTileBytes;
  }
  __device__ __forceinline__ uint32_t Values(int buffer) const {
    return shared_ + (2 + buffer) * kTileBytes;
  }

  __device__ __forceinline__ void ReadTable(int tile, int (&blocks)[4]) const {
    if (tile > last_tile_) return;
    const int4 ids = __ldg(reinterpret_cast<const int4*>(table_) + tile);
    blocks[0] = ids.x;
    blocks[1] = ids.y;
    blocks[2] = ids.z;
    blocks[3] = ids.w;
  }

  // Every call commits a group, so that their number tells which have landed.
  __device__ __forceinline__ void StartKeys(int tile, int buffer, const int (&blocks)[4]) const {
    Start(args_.keys, tile, Keys(buffer), blocks);
  }
  __device__ __forceinline__ void StartValues(int tile, int buffer, const int (&blocks)[4]) const {
    Start(args_.values, tile, Values(buffer), blocks);
  }
  __device__ __forceinline__ void Start(const __nv_bfloat16* from, int tile, uint32_t to,
                                        const int (&blocks)[4]) const {
    if (tile <= last_tile_) {
      constexpr int kHeadElements = KvCacheLayout::kBlockTokens * kHeadDim;
      LoadTile<kHeadDim, kThreads>(to, from + kv_head_ * kHeadElements,
                                   static_cast<int64_t>(kHeadElements) * args_.n_kv_heads, blocks,
                                   tile * kTileTokens, lo_, hi_);
    }
    CommitCopies();
  }

  // Row i of the lane's two: its row of the batch and its query head; false if there is none.
  __device__ __forceinline__ bool Locate(int i, int& row, int& head) const {
    const int warp = static_cast<int>(threadIdx.x) / kWarp;
    const int at = warp * 16 + static_cast<int>(threadIdx.x) % kWarp / 4 + i * 8;
    row = item_.first_row + at / args_.group;
    head = kv_head_ * args_.group + at % args_.group;
    return at < item_.n_rows * args_.group;
  }

  __device__ __forceinline__ void LoadRows() {
    const int column = 2 * (static_cast<int>(threadIdx.x) % 4);
    int limits[4] = {INT_MAX, -1, INT_MAX, -1};  // of first and last, least and highest
#pragma unroll
    for (int i = 0; i < 2; ++i) {
      int row, head;
      const bool valid = Locate(i, row, head);
      const int position = valid ? args_.positions[row] : -1;
      rows_.last[i] = position;
      rows_.first[i] = FirstPosition(args_.window, position);
      if (valid) {
        limits[0] = min(limits[0], rows_.first[i]);
        limits[1] = max(limits[1], rows_.first[i]);
        limits[2] = min(limits[2], position);
        limits[3] = max(limits[3], position);
      }
      const __nv_bfloat16* q =
          args_.q + (static_cast<int64_t>(row) * args_.n_heads + head) * kHeadDim + column;
#pragma unroll
      for (int k = 0; k < kHeadDim / 16; ++k) {
#pragma unroll
        for (int half = 0; half < 2; ++half) {
          rows_.q[k][i + 2 * half] =
              valid ? *reinterpret_cast<const uint32_t*>(q + k * 16 + half * 8) : 0u;
        }
      }
    }
    min_first_ = __reduce_min_sync(kAllLanes, limits[0]);
    max_first_ = __reduce_max_sync(kAllLanes, limits[1]);
    min_last_ = __reduce_min_sync(kAllLanes, limits[2]);
    max_last_ = __reduce_max_sync(kAllLanes, limits[3]);
    rows_.StartChunk();
  }

  __device__ __forceinline__ void EndChunk(int chunk, bool last) {
#pragma unroll
    for (int i = 0; i < 2; ++i) {
      rows_.l[i] = __fadd_rn(rows_.l[i], __shfl_xor_sync(kAllLanes, rows_.l[i], 1));
      rows_.l[i] = __fadd_rn(rows_.l[i], __shfl_xor_sync(kAllLanes, rows_.l[i], 2));
    }
    if (item_.split) {
      WritePart(chunk);
    } else {
      MergePart(last);
    }
    rows_.StartChunk();
  }

  __device__ __forceinline__ void WritePart(int chunk) const {
    const int lane = static_cast<int>(threadIdx.x) % kWarp;
#pragma unroll
    for (int i = 0; i < 2; ++i) {
      int row, head;
      if (!Locate(i, row, head)) continue;
      if (chunk < rows_.first[i] / kChunkTokens || chunk > rows_.last[i] / kChunkTokens) continue;
      const int64_t slot = args_.row_slots[row] + chunk;
      const int64_t part = slot * args_.n_heads + head;
      float* to = args_.part_values + part * kHeadDim + 2 * (lane % 4);
#pragma unroll
      for (int n = 0; n < kHeadDim / 8; ++n) {
        *reinterpret_cast<float2*>(to + n * 8) =
            make_float2(rows_.o[n][2 * i], rows_.o[n][2 * i + 1]);
      }
      if (lane % 4 == 0) args_.part_sums[part] = make_float2(rows_.m[i], rows_.l[i]);
    }
  }

  // What the rows have of earlier chunks lies in shared memory; each thread touches its own.
  // Volatile, so that it is not read far ahead into registers that are not there.
  __device__ __forceinline__ void MergePart(bool last) {
    MergeWeights weights[2];
#pragma unroll
    for (int i = 0; i < 2; ++i) weights[i] = Merge(rows_.m[i], rows_.l[i], whole_[i]);
    volatile float* merged = merged_ + threadIdx.x;
    if (!any_merged_) {
#pragma unroll
      for (int i = 0; i < kHeadDim / 2; ++i) merged[i * kThreads] = 0.0f;
    }
#pragma unroll
    for (int n = 0; n < kHeadDim / 8; ++n) {
#pragma unroll
      for (int e = 0; e < 4; ++e) {
        volatile float& whole = merged[(n * 4 + e) * kThreads];
        rows_.o[n][e] = MergeValue(whole, rows_.o[n][e], weights[e >> 1]);
        if (!last) whole = rows_.o[n][e];
      }
    }
    any_merged_ = true;
    if (last) WriteRows();
  }

  __device__ __forceinline__ void WriteRows() const {
#pragma unroll
    for (int i = 0; i < 2; ++i) {
      int row, head;
      if (!Locate(i, row, head)) continue;
      const float reciprocal = __frcp_rn(whole_[i].l);
      const int64_t at = (static_cast<int64_t>(row) * args_.n_heads + head) * kHeadDim +
                         2 * (static_cast<int>(threadIdx.x) % 4);
#pragma unroll
      for (int n = 0; n < kHeadDim / 8; ++n) {
        WritePair(args_.out, args_.out_bf16, at + n * 8,
                  Normalised(rows_.o[n][2 * i], reciprocal),
                  Normalised(rows_.o[n][2 * i + 1], reciprocal));
      }
    }
  }

  const AttentionArgs& args_;
  const uint32_t shared_;
  float* const merged_;  // [head_dim / 2, threads]
  const AttentionItem item_;
  const int kv_head_;
  const int32_t* table_;
  int lo_, hi_;  // positions to read
  int last_tile_;
  int min_first_, max_first_, min_last_, max_last_;  // over the warp's rows
  WarpRows<kHeadDim> rows_;
  Softmax whole_[2];
  bool any_merged_ = false;
};

template <int kHeadDim, int kWarps>
__global__ void __launch_bounds__(kWarps* kWarp)
    AttentionKernel(const __grid_constant__ AttentionArgs args) {
  extern __shared__ __align__(256) unsigned char shared[];
  TileWork<kHeadDim, kWarps>(args, shared).Run();
}

template <int kHeadDim>
cudaError_t LaunchAll(AttentionArgs args, const CombineArgs& combine, const DevicePlan& plan,
                      cudaStream_t stream) {
  using Narrow = TileWork<kHeadDim, kNarrowTileRows / 16>;
  using Wide = TileWork<kHeadDim, kWideTileRows / 16>;
  cudaError_t error =
      LaunchKernel(AttentionKernel<kHeadDim, kNarrowTileRows / 16>, args,
                   static_cast<int64_t>(plan.n_narrow) * args.n_kv_heads, Narrow::kThreads,
                   Narrow::kSharedBytes, stream);
  if (error != cudaSuccess) return error;
  args.items += plan.n_narrow;
  error = LaunchKernel(AttentionKernel<kHeadDim, kWideTileRows / 16>, args,
                       static_cast<int64_t>(plan.n_wide) * args.n_kv_heads, Wide::kThreads,
                       Wide::kSharedBytes, stream);
  if (error != cudaSuccess) return error;
  return CombineParts(kHeadDim, combine, stream);
}

bool IsAligned(const void* pointer) {
  return pointer != nullptr && reinterpret_cast<uintptr_t>(pointer) % 16 == 0;
}

bool IsUsable(const AttentionShape& shape, const RowBatch& rows) {
  return shape.IsServed() && rows.n_rows > 0 && rows.positions != nullptr &&
         rows.sequences != nullptr && IsAligned(rows.block_tables) && rows.table_stride > 0 &&
         rows.table_stride % 4 == 0;
}

}  // namespace

DevicePlan ViewPlan(const AttentionPlan& plan, const void* packed, void* workspace) {
  const auto* items = static_cast<const AttentionItem*>(packed);
  const auto* row_slots = reinterpret_cast<const int32_t*>(items + plan.items.size());
  return {.items = items,
          .n_narrow = plan.n_narrow,
          .n_wide = plan.n_wide,
          .row_slots = row_slots,
          .combine_rows = row_slots + plan.row_slots.size(),
          .n_combine = static_cast<int>(plan.combine_rows.size()),
          .workspace = static_cast<float*>(workspace),
          .n_slots = plan.n_slots};
}

cudaError_t Attention(const AttentionShape& shape, const RowBatch& rows, const DevicePlan& plan,
                      const __nv_bfloat16* q, const __nv_bfloat16* keys,
                      const __nv_bfloat16* values, float* out, __nv_bfloat16* out_bf16,
                      cudaStream_t stream) {
  if (!IsUsable(shape, rows) || !IsAligned(plan.items) || plan.row_slots == nullptr ||
      !IsAligned(q) || !IsAligned(keys) || !IsAligned(values) ||
      (out == nullptr) == (out_bf16 == nullptr) ||
      !IsAligned(out != nullptr ? static_cast<void*>(out) : out_bf16) ||
      (plan.n_combine > 0 && !IsAligned(plan.workspace))) {
    return cudaErrorInvalidValue;
  }
  float* const part_values = plan.workspace;
  float2* const part_sums =
      reinterpret_cast<float2*>(part_values + plan.n_slots * shape.n_heads * shape.head_dim);
  const AttentionArgs args = {.items = plan.items,
                              .positions = rows.positions,
                              .block_tables = rows.block_tables,
                              .table_stride = rows.table_stride,
                              .row_slots = plan.row_slots,
                              .n_heads = shape.n_heads,
                              .n_kv_heads = shape.n_kv_heads,
                              .group = shape.group(),
                              .window = shape.window,
                              .scale_log2 = shape.scale * kLog2E,
                              .q = q,
                              .keys = keys,
                              .values = values,
                              .out = out,
                              .out_bf16 = out_bf16,
                              .part_values = part_values,
                              .part_sums = part_sums};
  const CombineArgs combine = {.rows = plan.combine_rows,
                               .n_rows = plan.n_combine,
                               .positions = rows.positions,
                               .row_slots = plan.row_slots,
                               .n_heads = shape.n_heads,
                               .window = shape.window,
                               .part_values = part_values,
                               .part_sums = part_sums,
                               .out = out,
                               .out_bf16 = out_bf16};
  return shape.head_dim == 128 ? LaunchAll<128>(args, combine, plan, stream)
                               : LaunchAll<64>(args, combine, plan, stream);
}

}  // namespace gatefold::cuda
