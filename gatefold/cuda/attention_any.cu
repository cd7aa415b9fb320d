#include <atomic>
#include <climits>

#include "gatefold/cuda/attention.h"
#include "gatefold/cuda/attention_tile.h"
#include "gatefold/cuda/cuda_macros.h"
#include "gatefold/cuda/launch.h"

namespace gatefold::cuda {
namespace {

template <int kWarps>
__device__ __forceinline__ void SyncBlock() {
  if constexpr (kWarps == 1) {
    __syncwarp();
  } else {
    __syncthreads();
  }
}

// One worker: query rows of one KV head against some chunks of their sequence, then the next ones.
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
        merged_(reinterpret_cast<float*>(shared + 4 * kTileBytes)) {}

  __device__ __forceinline__ void Run() {
#pragma unroll 1
    for (int index = FirstSegment(args_); index >= 0; index = item_.next) {
      item_ = LoadSegment(args_, index);
      Segment();
    }
    SyncBlock<kWarps>();
    FinishSplitTiles<kHeadDim, 8>(args_, static_cast<int>(threadIdx.x), kThreads,
                                  reinterpret_cast<int*>(merged_), [] { SyncBlock<kWarps>(); });
  }

 private:
  __device__ __forceinline__ void Segment() {
    lo_ = LoPosition(args_, item_);
    hi_ = HiPosition(item_);
    whole_[0] = whole_[1] = Softmax();
    any_merged_ = false;
    SyncBlock<kWarps>();  // the buffers are free
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
      if (tile == last_tile_ || (tile + 1) % kChunkTiles == 0) {
        EndChunk(tile / kChunkTiles, tile == last_tile_);
      }
    }
  }

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
    Start(0, tile, Keys(buffer), blocks);
  }
  __device__ __forceinline__ void StartValues(int tile, int buffer, const int (&blocks)[4]) const {
    Start(1, tile, Values(buffer), blocks);
  }
  // values: 0 or 1.
  __device__ __forceinline__ void Start(int values, int tile, uint32_t to,
                                        const int (&blocks)[4]) const {
    if (tile <= last_tile_) {
      constexpr int kElements = KvCacheLayout::kBlockTokens * kHeadDim;  // keys or values of a head
      LoadTile<kHeadDim, kThreads>(to, args_.kv + (2 * item_.kv_head + values) * kElements,
                                   int64_t{2} * kElements * args_.n_kv_heads, blocks,
                                   tile * kTileTokens, lo_, hi_);
    }
    CommitCopies();
  }

  // Of the lane's two.
  __device__ __forceinline__ bool LocateRow(int i, int& row, int& head) const {
    const int warp = static_cast<int>(threadIdx.x) / kWarp;
    const int at = warp * 16 + static_cast<int>(threadIdx.x) % kWarp / 4 + i * 8;
    return Locate(args_, item_, at, row, head);
  }

  __device__ __forceinline__ void LoadRows() {
    const int column = 2 * (static_cast<int>(threadIdx.x) % 4);
    int limits[4] = {INT_MAX, -1, INT_MAX, -1};  // of first and last, least and highest
#pragma unroll
    for (int i = 0; i < 2; ++i) {
      int row, head;
      const bool valid = LocateRow(i, row, head);
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
    float sums[2];
    rows_.SumLanes(sums);
    if (IsPrefix(item_)) {
      MergePart(last, sums);
      if (last && item_.n_segments == 1) WriteRows();
      if (last && item_.n_segments > 1) {
        const float m[2] = {whole_[0].m, whole_[1].m}, l[2] = {whole_[0].l, whole_[1].l};
        WritePart(chunk, m, l);
      }
    } else {
      WritePart(chunk, rows_.m, sums);
    }
    rows_.StartChunk();
  }

  __device__ __forceinline__ void WritePart(int chunk, const float (&m)[2],
                                            const float (&sums)[2]) const {
    const int lane = static_cast<int>(threadIdx.x) % kWarp;
#pragma unroll
    for (int i = 0; i < 2; ++i) {
      int row, head;
      if (!LocateRow(i, row, head)) continue;
      const int64_t part = PartOf(args_, item_, chunk, rows_.first[i], rows_.last[i], row, head);
      if (part < 0) continue;
      float* to = args_.part_values + part * kHeadDim + 2 * (lane % 4);
#pragma unroll
      for (int n = 0; n < kHeadDim / 8; ++n) {
        *reinterpret_cast<float2*>(to + n * 8) =
            make_float2(rows_.o[n][2 * i], rows_.o[n][2 * i + 1]);
      }
      if (lane % 4 == 0) args_.part_sums[part] = make_float2(m[i], sums[i]);
    }
  }

  // What the rows have of earlier chunks lies in shared memory; each thread touches its own.
  // Volatile, so that it is not read far ahead into registers that are not there.
  __device__ __forceinline__ void MergePart(bool last, const float (&sums)[2]) {
    MergeWeights weights[2];
#pragma unroll
    for (int i = 0; i < 2; ++i) weights[i] = Merge(rows_.m[i], sums[i], whole_[i]);
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
  }

  __device__ __forceinline__ void WriteRows() const {
#pragma unroll
    for (int i = 0; i < 2; ++i) {
      int row, head;
      if (!LocateRow(i, row, head)) continue;
      const float reciprocal = __frcp_rn(whole_[i].l);
      const int dim = 2 * (static_cast<int>(threadIdx.x) % 4);
#pragma unroll
      for (int n = 0; n < kHeadDim / 8; ++n) {
        WritePair<kHeadDim>(args_, row, head, dim + n * 8,
                            Normalised(rows_.o[n][2 * i], reciprocal),
                            Normalised(rows_.o[n][2 * i + 1], reciprocal));
      }
    }
  }

  const AttentionArgs& args_;
  const uint32_t shared_;
  float* const merged_;  // [head_dim / 2, threads]
  AttentionSegment item_;
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
  GATEFOLD_DYNAMIC_SHARED(__align__(256) unsigned char, shared);
  TileWork<kHeadDim, kWarps>(args, shared).Run();
}

template <int kHeadDim, int kWarps>
cudaError_t LaunchWorkers(const AttentionArgs& args, int n_workers, cudaStream_t stream) {
  using Work = TileWork<kHeadDim, kWarps>;
  const auto kernel = AttentionKernel<kHeadDim, kWarps>;
  static std::atomic<bool> is_allowed = false;
  GF_CUDA_RETURN_IF_ERROR(AllowShared(kernel, Work::kSharedBytes, true, &is_allowed));
  return LaunchKernel(kernel,
                      {.n_blocks = n_workers,
                       .n_threads = Work::kThreads,
                       .shared_bytes = Work::kSharedBytes},
                      stream, args);
}

constexpr int kNarrowWarps = kNarrowTilePairs / 16;
constexpr int kWideWarps = WideTilePairs(AttentionKernels::kAny) / 16;

}  // namespace

cudaError_t LaunchNarrow(int head_dim, const AttentionArgs& args, int n_workers,
                         cudaStream_t stream) {
  return head_dim == 128 ? LaunchWorkers<128, kNarrowWarps>(args, n_workers, stream)
                         : LaunchWorkers<64, kNarrowWarps>(args, n_workers, stream);
}

cudaError_t LaunchWide(int head_dim, const AttentionArgs& args, int n_workers,
                       cudaStream_t stream) {
  return head_dim == 128 ? LaunchWorkers<128, kWideWarps>(args, n_workers, stream)
                         : LaunchWorkers<64, kWideWarps>(args, n_workers, stream);
}

}  // namespace gatefold::cuda
