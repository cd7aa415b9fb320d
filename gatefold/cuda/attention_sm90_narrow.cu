// Narrow tiles on Hopper: bound by reading keys and values, so that a worker is one warp that
// copies and one that computes, and the rows are the small side of the products (S^T = K Q^T, O^T =
// V^T P^T): 8 pairs of (row, query head) cost half of what the 16 of the other side would.

#include <atomic>
#include <climits>

#include "gatefold/cuda/attention_sm90_ring.cuh"
#include "gatefold/cuda/cuda_macros.h"
#include "gatefold/cuda/launch.h"

namespace gatefold::cuda {
namespace {

using sm90::Ring;

// A stage: a tile's four blocks, keys and values of each.
template <int kHeadDim, int kStages>
using TileRing = Ring<kTileTokens * kHeadDim * 4, kStages>;

// Those positions of a tile whose values nobody reads: zero weights do not make zeros of just
// anything.
template <int kHeadDim>
__device__ __forceinline__ void ZeroOutside(unsigned char* stage, int first, int lo, int hi) {
  const int lane = static_cast<int>(threadIdx.x) % kWarp;
  constexpr int kPieces = kHeadDim / 8;
#pragma unroll 1
  for (int i = lane; i < kTileTokens * kPieces; i += kWarp) {
    const int token = i / kPieces, position = first + token;
    if (position >= lo && position <= hi) continue;
    unsigned char* const values = stage + (token / 16 * 2 + 1) * 32 * kHeadDim;
    *reinterpret_cast<uint4*>(values + PlaceOf<kHeadDim>(token % 16, i % kPieces)) = uint4{};
  }
  sm90::FenceAsync();
  __syncwarp();
}

// The warp that computes, with rows as the columns of its products.
// Lane i holds of s, [64 positions, 8 kColumns pairs], positions g = i / 4 and g + 8 of each 16 and
// of each 8 pairs the two at 2 (i % 4); of o, [head_dim, pairs], the same of dims.
template <int kHeadDim, int kStages, int kColumns>
class ColumnWorker {
 public:
  using R = TileRing<kHeadDim, kStages>;
  static constexpr int kDims = kHeadDim / 16;
  static constexpr int kPartBytes = 32 * kHeadDim;  // of a block: its keys, or its values behind

  __device__ __forceinline__ ColumnWorker(const AttentionArgs& args, const R& ring)
      : args_(args), ring_(ring), lane_(static_cast<int>(threadIdx.x) % kWarp) {}

  __device__ __forceinline__ void Run() {
    const int first = FirstSegment(args_);
#pragma unroll 1
    for (int index = first; index >= 0; index = item_.next) {
      item_ = LoadSegment(args_, index);
      if (index == first) AwaitKernelBefore();
      Segment();
    }
  }

 private:
  __device__ __forceinline__ void Release() {
    __syncwarp();
    if (lane_ == 0) sm90::BarrierArrive(ring_.Empty(ring_.stage));
    ring_.Next();
  }

  __device__ __forceinline__ void Segment() {
    const int lo = LoPosition(args_, item_), hi = HiPosition(item_);
    const int last_tile = hi / kTileTokens;
    LoadRows();
#pragma unroll
    for (int j = 0; j < kColumns; ++j) {
#pragma unroll
      for (int e = 0; e < 2; ++e) whole_[j][e] = Softmax();
#pragma unroll
      for (int d = 0; d < kDims; ++d) {
#pragma unroll
        for (int e = 0; e < 4; ++e) whole_o_[d][j][e] = 0.0f;
      }
    }
#pragma unroll 1
    for (int tile = lo / kTileTokens; tile <= last_tile; ++tile) {
      const int first = tile * kTileTokens;
      const int last = first + kTileTokens - 1;
      const bool mask = last > min_last_ || first < max_first_;
      uint32_t p[4][kColumns][2];
      ring_.AwaitFull();
      float s[4][kColumns][4];
      Score(s);
      Weigh(s, first, mask, p);
      if (first < lo || last > hi) ZeroOutside<kHeadDim>(ring_.Stage(ring_.stage), first, lo, hi);
      Gather(p);
      Release();
      if (tile == last_tile || (tile + 1) % kChunkTiles == 0) {
        EndChunk(tile / kChunkTiles);
      }
    }
    if (item_.n_segments == 1) {
      WriteRows();
    } else if (IsPrefix(item_)) {
      WritePart(last_tile / kChunkTiles, whole_, whole_o_);
    }
  }

  __device__ __forceinline__ void LoadRows() {
    int limits[2] = {-1, INT_MAX};  // highest first, least last
#pragma unroll
    for (int j = 0; j < kColumns; ++j) {
      int row, head;
#pragma unroll
      for (int e = 0; e < 2; ++e) {
        const bool valid = Locate(args_, item_, j * 8 + 2 * (lane_ % 4) + e, row, head);
        const int position = valid ? __ldg(args_.positions + row) : -1;
        last_[j][e] = position;
        first_[j][e] = FirstPosition(args_.window, position);
        if (valid) {
          limits[0] = max(limits[0], first_[j][e]);
          limits[1] = min(limits[1], position);
        }
      }
      const bool valid = Locate(args_, item_, j * 8 + lane_ / 4, row, head);
      const __nv_bfloat16* q =
          args_.q + (static_cast<int64_t>(row) * args_.n_heads + head) * kHeadDim + 2 * (lane_ % 4);
#pragma unroll
      for (int k = 0; k < kDims; ++k) {
#pragma unroll
        for (int half = 0; half < 2; ++half) {
          q_[k][j][half] = valid ? *reinterpret_cast<const uint32_t*>(q + k * 16 + half * 8) : 0u;
        }
      }
    }
    max_first_ = __reduce_max_sync(kAllLanes, limits[0]);
    min_last_ = __reduce_min_sync(kAllLanes, limits[1]);
    StartChunk();
  }

  __device__ __forceinline__ void StartChunk() {
#pragma unroll
    for (int j = 0; j < kColumns; ++j) {
#pragma unroll
      for (int e = 0; e < 2; ++e) part_[j][e] = Softmax();
#pragma unroll
      for (int d = 0; d < kDims; ++d) {
#pragma unroll
        for (int e = 0; e < 4; ++e) o_[d][j][e] = 0.0f;
      }
    }
  }

  __device__ __forceinline__ void Score(float (&s)[4][kColumns][4]) const {
    const uint32_t keys =
        SharedAddress(ring_.Stage(ring_.stage)) + PlaceOf<kHeadDim>(lane_ & 15, lane_ >> 4);
#pragma unroll
    for (int i = 0; i < 4; ++i) {
#pragma unroll
      for (int j = 0; j < kColumns; ++j) {
#pragma unroll
        for (int e = 0; e < 4; ++e) s[i][j][e] = 0.0f;
      }
    }
#pragma unroll
    for (int k = 0; k < kDims; ++k) {
#pragma unroll
      for (int i = 0; i < 4; ++i) {
        uint32_t a[4];
        LoadMatrices((keys ^ ((k % 4) << 5)) + k / 4 * 2048 + i * 2 * kPartBytes, a);
#pragma unroll
        for (int j = 0; j < kColumns; ++j) MultiplyAdd(s[i][j], a, q_[k][j][0], q_[k][j][1]);
      }
    }
  }

  __device__ __forceinline__ void Weigh(float (&s)[4][kColumns][4], int first_position, bool mask,
                                        uint32_t (&p)[4][kColumns][2]) {
#pragma unroll
    for (int j = 0; j < kColumns; ++j) {
      if (mask) {
#pragma unroll
        for (int i = 0; i < 4; ++i) {
#pragma unroll
          for (int e = 0; e < 4; ++e) {
            const int position = first_position + i * 16 + (e >> 1) * 8 + lane_ / 4;
            if (position < first_[j][e & 1] || position > last_[j][e & 1]) s[i][j][e] = kNever;
          }
        }
      }
      float top[2] = {kNever, kNever};
#pragma unroll
      for (int i = 0; i < 4; ++i) {
#pragma unroll
        for (int e = 0; e < 4; ++e) top[e & 1] = fmaxf(top[e & 1], s[i][j][e]);
      }
      float scale[2], reference[2], sum[2] = {0.0f, 0.0f};
#pragma unroll
      for (int e = 0; e < 2; ++e) {
        top[e] = fmaxf(top[e], __shfl_xor_sync(kAllLanes, top[e], 4));
        top[e] = fmaxf(top[e], __shfl_xor_sync(kAllLanes, top[e], 8));
        top[e] = fmaxf(top[e], __shfl_xor_sync(kAllLanes, top[e], 16));
        top[e] = fmaxf(part_[j][e].m, __fmul_rn(top[e], args_.scale_log2));
        reference[e] = Reference(top[e]);
        scale[e] = Exp2(__fsub_rn(part_[j][e].m, reference[e]));
        part_[j][e].m = top[e];
      }
#pragma unroll
      for (int i = 0; i < 4; ++i) {
#pragma unroll
        for (int e = 0; e < 4; ++e) {
          s[i][j][e] = Weight(s[i][j][e], args_.scale_log2, reference[e & 1]);
          sum[e & 1] = __fadd_rn(sum[e & 1], s[i][j][e]);
        }
        p[i][j][0] = Transposed(PackBF16(s[i][j][0], s[i][j][1]));
        p[i][j][1] = Transposed(PackBF16(s[i][j][2], s[i][j][3]));
      }
#pragma unroll
      for (int e = 0; e < 2; ++e) part_[j][e].l = __fmaf_rn(part_[j][e].l, scale[e], sum[e]);
#pragma unroll
      for (int d = 0; d < kDims; ++d) {
#pragma unroll
        for (int e = 0; e < 4; ++e) o_[d][j][e] = __fmul_rn(o_[d][j][e], scale[e & 1]);
      }
    }
  }

  __device__ __forceinline__ void Gather(const uint32_t (&p)[4][kColumns][2]) {
    const uint32_t values = SharedAddress(ring_.Stage(ring_.stage)) + kPartBytes +
                            PlaceOf<kHeadDim>((lane_ & 7) + (lane_ >> 4) * 8, (lane_ >> 3) & 1);
#pragma unroll
    for (int k = 0; k < 4; ++k) {
#pragma unroll
      for (int d = 0; d < kDims; ++d) {
        uint32_t a[4];
        LoadMatricesTransposed((values ^ ((d % 4) << 5)) + d / 4 * 2048 + k * 2 * kPartBytes, a);
#pragma unroll
        for (int j = 0; j < kColumns; ++j) MultiplyAdd(o_[d][j], a, p[k][j][0], p[k][j][1]);
      }
    }
  }

  __device__ __forceinline__ void EndChunk(int chunk) {
#pragma unroll
    for (int j = 0; j < kColumns; ++j) {
#pragma unroll
      for (int e = 0; e < 2; ++e) {
        float& l = part_[j][e].l;
        l = __fadd_rn(l, __shfl_xor_sync(kAllLanes, l, 4));
        l = __fadd_rn(l, __shfl_xor_sync(kAllLanes, l, 8));
        l = __fadd_rn(l, __shfl_xor_sync(kAllLanes, l, 16));
      }
    }
    if (IsPrefix(item_)) {
#pragma unroll
      for (int j = 0; j < kColumns; ++j) {
        MergeWeights weights[2];
#pragma unroll
        for (int e = 0; e < 2; ++e) {
          weights[e] = Merge(part_[j][e].m, part_[j][e].l, whole_[j][e]);
        }
#pragma unroll
        for (int d = 0; d < kDims; ++d) {
#pragma unroll
          for (int e = 0; e < 4; ++e) {
            whole_o_[d][j][e] = MergeValue(whole_o_[d][j][e], o_[d][j][e], weights[e & 1]);
          }
        }
      }
    } else {
      WritePart(chunk, part_, o_);
    }
    StartChunk();
  }

  __device__ __forceinline__ void WritePart(int chunk, const Softmax (&part)[kColumns][2],
                                            const float (&o)[kDims][kColumns][4]) const {
#pragma unroll
    for (int j = 0; j < kColumns; ++j) {
#pragma unroll
      for (int e = 0; e < 2; ++e) {
        int row, head;
        if (!Locate(args_, item_, j * 8 + 2 * (lane_ % 4) + e, row, head)) continue;
        const int64_t at = PartOf(args_, item_, chunk, first_[j][e], last_[j][e], row, head);
        if (at < 0) continue;
        float* to = args_.part_values + at * kHeadDim + lane_ / 4;
#pragma unroll
        for (int d = 0; d < kDims; ++d) {
          to[d * 16] = o[d][j][e];
          to[d * 16 + 8] = o[d][j][e + 2];
        }
        if (lane_ / 4 == 0) args_.part_sums[at] = make_float2(part[j][e].m, part[j][e].l);
      }
    }
  }

  __device__ __forceinline__ void WriteRows() const {
#pragma unroll
    for (int j = 0; j < kColumns; ++j) {
#pragma unroll
      for (int e = 0; e < 2; ++e) {
        int row, head;
        if (!Locate(args_, item_, j * 8 + 2 * (lane_ % 4) + e, row, head)) continue;
        const float reciprocal = __frcp_rn(whole_[j][e].l);
#pragma unroll
        for (int d = 0; d < kDims; ++d) {
          Write(row, head, d * 16, Normalised(whole_o_[d][j][e], reciprocal));
          Write(row, head, d * 16 + 8, Normalised(whole_o_[d][j][e + 2], reciprocal));
        }
      }
    }
  }
  // The lane's of eight dims.
  __device__ __forceinline__ void Write(int row, int head, int dim, float x) const {
    const int mine = lane_ / 4;
    if (args_.out != nullptr) {
      args_.out[(static_cast<int64_t>(row) * args_.n_heads + head) * kHeadDim + dim + mine] = x;
    } else {
      char* const eight = ActivationsAt<kHeadDim>(args_, row, head, dim);
      reinterpret_cast<__nv_bfloat16*>(eight)[mine] = __float2bfloat16_rn(x);
    }
  }

  const AttentionArgs& args_;
  R ring_;
  const int lane_;
  AttentionSegment item_;
  uint32_t q_[kDims][kColumns][2];
  int first_[kColumns][2], last_[kColumns][2];  // positions that the lane's two rows read
  int max_first_, min_last_;                    // over all rows
  Softmax part_[kColumns][2];                   // of the chunk; l: of this lane's positions
  float o_[kDims][kColumns][4];
  Softmax whole_[kColumns][2];
  float whole_o_[kDims][kColumns][4];
};

// The warps beyond two help to merge parts in the end.
template <int kHeadDim, int kStages, int kColumns, int kWarps>
__global__ void __launch_bounds__(kWarps* kWarp, 2)
    NarrowKernel(const __grid_constant__ AttentionArgs args) {
  GATEFOLD_DYNAMIC_SHARED(__align__(1024) unsigned char, shared);
  using R = TileRing<kHeadDim, kStages>;
  R ring{shared};
  LetNextKernelStart();
  if (threadIdx.x == 0) ring.Init(1);
  __syncthreads();
  if (threadIdx.x < kWarp) {
    ColumnWorker<kHeadDim, kStages, kColumns>(args, ring).Run();
  } else if (threadIdx.x < 2 * kWarp) {
    sm90::FillRing<kHeadDim, true>(args, ring);
  }
  AwaitKernelBefore();  // the warps that only merge
  constexpr int kBatch = kWarps == 2 ? 16 : kHeadDim / 4;  // as registers allow
  FinishSplitTiles<kHeadDim, kBatch>(args, static_cast<int>(threadIdx.x), kWarps * kWarp,
                                     reinterpret_cast<int*>(shared + R::kBytes),
                                     [] { __syncthreads(); });
}

template <int kHeadDim, int kStages, int kColumns, int kWarps>
cudaError_t Launch(const AttentionArgs& args, int n_workers, cudaStream_t stream) {
  constexpr int kBytes = TileRing<kHeadDim, kStages>::kBytes + 16;
  const auto kernel = NarrowKernel<kHeadDim, kStages, kColumns, kWarps>;
  static std::atomic<bool> is_allowed = false;
  GF_CUDA_RETURN_IF_ERROR(AllowShared(kernel, kBytes, true, &is_allowed));
  return LaunchKernel(kernel,
                      {.n_blocks = n_workers,
                       .n_threads = kWarps * kWarp,
                       .shared_bytes = kBytes,
                       .overlaps = kMayOverlap},
                      stream, args);
}

}  // namespace

cudaError_t LaunchHopperNarrow(int head_dim, int pairs, const AttentionArgs& args, int n_workers,
                               cudaStream_t stream) {
  if (n_workers == 0) return cudaSuccess;
  if (head_dim == 128) {
    return pairs <= 8 ? Launch<128, 3, 1, 6>(args, n_workers, stream)
                      : Launch<128, 3, 2, 2>(args, n_workers, stream);
  }
  return pairs <= 8 ? Launch<64, 6, 1, 6>(args, n_workers, stream)
                    : Launch<64, 6, 2, 2>(args, n_workers, stream);
}

}  // namespace gatefold::cuda
