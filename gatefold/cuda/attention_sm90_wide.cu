// Wide tiles on Hopper: bound by multiplying. A worker is a few warpgroups of 64 (row, query head)
// pairs each, which share the keys and values that one warp copies.
//
// The scores of the next 64 positions are started before the values of these are added up, and made
// into weights meanwhile. While one group does that, others multiply.

#include <atomic>
#include <climits>

#include "gatefold/cuda/attention_sm90_ring.cuh"
#include "gatefold/cuda/attention_sm90_rows.cuh"
#include "gatefold/cuda/attention_wgmma.cuh"
#include "gatefold/cuda/cuda_macros.h"
#include "gatefold/cuda/launch.h"
#include "gatefold/cuda/matrix_descriptor.h"

namespace gatefold::cuda {
namespace {

using sm90::Descriptor;
using sm90::HoldOperands;
using sm90::HoldSums;
using sm90::PairRows;
using sm90::Ring;
using sm90::WgmmaCommit;
using sm90::WgmmaFence;
using sm90::WgmmaScores;
using sm90::WgmmaValues;
using sm90::WgmmaWait;

constexpr int kGroupThreads = 128;

// Tiles and queries: [head_dim / 64][64 positions or pairs][64]. What a group has of earlier chunks lies
// where its results will.
template <int kHeadDim, int kGroups, int kStages>
struct Room {
  using R = Ring<kTileTokens * kHeadDim * 2, kStages>;
  static constexpr int kHalfBytes = kTileTokens * 128;
  static constexpr int kQueryBytes = PairRows<kHeadDim>::kQueryBytes;
  static constexpr int kMergedBytes = PairRows<kHeadDim>::kResultBytes;
  static_assert(kMergedBytes == kGroupThreads * (kHeadDim / 2) * 4);
  static constexpr int kMerged = kGroups * kQueryBytes;  // behind the queries
  static constexpr int kRing = kMerged + kGroups * kMergedBytes;
  static constexpr int kIsLast = kRing + R::kBytes;
  static constexpr int kBytes = kIsLast + 16;
  static_assert(kBytes <= 227 * 1024);
};

template <int kGroups>
__device__ __forceinline__ void SyncGroups() {
  SyncThreads<kGroups * kGroupThreads>(kGroups + 1);
}

// The same in all lanes, which tells the compiler so: descriptors belong in uniform registers.
__device__ __forceinline__ int Uniform(int x) { return __shfl_sync(kAllLanes, x, 0); }

// A warpgroup: 64 pairs of each segment. Thread i of a warp holds of s and o the pairs i / 4 and 8
// more, of each 8 positions or dims the two at 2 (i % 4).
template <int kHeadDim, int kGroups, int kStages>
class GroupWorker {
 public:
  using R = Room<kHeadDim, kGroups, kStages>;
  static constexpr int kSums = kHeadDim / 2;

  __device__ __forceinline__ GroupWorker(const AttentionArgs& args, unsigned char* shared)
      : args_(args),
        group_(Uniform(static_cast<int>(threadIdx.x) / kGroupThreads)),
        thread_(static_cast<int>(threadIdx.x) % kGroupThreads),
        ring_{shared + R::kRing},
        rows_(args, group_ * 64, thread_, group_ + 1, shared + group_ * R::kQueryBytes,
              shared + R::kMerged + group_ * R::kMergedBytes) {}

  __device__ __forceinline__ void Run() {
    index_ = FirstSegment(args_);
    StartRows(index_);
#pragma unroll 1
    while (index_ >= 0) {
      const AttentionSegment item = Item();
      lo_ = Uniform(LoPosition(args_, item));
      hi_ = Uniform(HiPosition(item));
      is_prefix_ = Uniform(IsPrefix(item)) != 0;
      if (Uniform(rows_.AnyOf(item)) != 0) {
        Segment();
      } else {
        StartRows(item.next);
        Skip();
      }
      index_ = Uniform(Item().next);
    }
  }

 private:
  // Read again where it is needed: registers are what a group has least of.
  __device__ __forceinline__ AttentionSegment Item() const { return LoadSegment(args_, index_); }

  // Of that segment, if there is one and it has any for this group.
  __device__ __forceinline__ void StartRows(int index) {
    if (index < 0) return;
    const AttentionSegment item = LoadSegment(args_, index);
    if (rows_.AnyOf(item)) rows_.Start(item);
  }

  // No pair of this segment is this group's.
  __device__ __forceinline__ void Skip() {
#pragma unroll 1
    for (int tile = lo_ / kTileTokens; tile <= hi_ / kTileTokens; ++tile) {
#pragma unroll 1
      for (int i = 0; i < 2; ++i) {
        ring_.AwaitFull();
        Release(ring_.stage);
        ring_.Next();
      }
    }
  }

  __device__ __forceinline__ void Segment() {
    AwaitRows();
    const int first_tile = lo_ / kTileTokens, last_tile = hi_ / kTileTokens;
    any_merged_ = false;
    whole_[0] = whole_[1] = Softmax();
#pragma unroll
    for (int i = 0; i < kSums; ++i) o_[i] = 0.0f;
    HoldSums(o_);
    uint32_t p[4][4];
    float scale[2];
    {
      float s[32];
      ring_.AwaitFull();
      WgmmaFence();
      StartScores(s);
      WgmmaWait<0>();
      HoldSums(s);
      Release(ring_.stage);
      ring_.Next();
      Weigh(s, first_tile, scale, p);  // o is zero still
    }
#pragma unroll 1
    for (int tile = first_tile; tile < last_tile; ++tile) {
      const bool ends = (tile + 1) % kChunkTiles == 0;
      // Keys of the next tile come after this tile's values in the ring.
      const int values = ring_.stage;
      ring_.AwaitFull();
      if (tile * kTileTokens < lo_) ZeroOutside(tile * kTileTokens);
      ring_.Next();
      float s[32];
      const float m[2] = {m_[0], m_[1]};
      const float l[2][2] = {{l_[0][0], l_[0][1]}, {l_[1][0], l_[1][1]}};
      if (ends) StartChunk();
      ring_.AwaitFull();
      WgmmaFence();
      StartScores(s);
      StartValues(p, values);
      WgmmaWait<1>();
      HoldSums(s);
      Release(ring_.stage);
      ring_.Next();
      uint32_t next[4][4];  // p is being multiplied
      Weigh(s, tile + 1, scale, next);
      HoldOperands(next);
      HoldSums(scale);
      // The wait stands in both branches lest the compiler puts it before the weights, which are to
      // be made meanwhile.
      if (ends) {
        sm90::KeepBranch<1>();
        AwaitValues(values);
        EndChunk(tile / kChunkTiles, m, l, false);
      } else {
        sm90::KeepBranch<2>();
        AwaitValues(values);
        // Often no row of the warp has a new highest score: times one, all stays as it is.
        if (__ballot_sync(kAllLanes, scale[0] != 1.0f || scale[1] != 1.0f) != 0) {
#pragma unroll
          for (int i = 0; i < kSums; ++i) o_[i] = __fmul_rn(o_[i], scale[(i >> 1) & 1]);
        }
      }
      // A mere copy would be optimised away, and the weights made in the registers that are
      // multiplied.
      const int zero = args_.n_heads >> 31;
#pragma unroll
      for (int i = 0; i < 16; ++i) p[i / 4][i % 4] = next[i / 4][i % 4] | zero;
    }
    ring_.AwaitFull();
    const int first = last_tile * kTileTokens;
    if (first < lo_ || first + kTileTokens - 1 > hi_) ZeroOutside(first);
    WgmmaFence();
    StartValues(p, ring_.stage);
    rows_.Sync();  // nobody multiplies with the queries any more
    StartRows(Item().next);
    WgmmaWait<0>();
    HoldSums(o_);
    Release(ring_.stage);
    ring_.Next();
    EndChunk(last_tile / kChunkTiles, m_, l_, true);
  }

  __device__ __forceinline__ void Release(int stage) const {
    if (thread_ % kWarp == 0) sm90::BarrierArrive(ring_.Empty(stage));
  }
  __device__ __forceinline__ uint32_t Tile(int stage) const {
    return SharedAddress(ring_.Stage(stage));
  }

  __device__ __forceinline__ void StartScores(float (&s)[32]) const {
    const uint64_t q = Descriptor(SharedAddress(rows_.queries()), 16),
                   k = Descriptor(Tile(ring_.stage), 16);
#pragma unroll
    for (int i = 0; i < kHeadDim / 16; ++i) {
      const uint64_t step = (i / 4 * R::kHalfBytes + i % 4 * 32) >> 4;
      WgmmaScores(s, q + step, k + step, i == 0);
    }
    WgmmaCommit();
  }

  __device__ __forceinline__ void StartValues(const uint32_t (&p)[4][4], int stage) {
    const uint64_t v = Descriptor(Tile(stage), R::kHalfBytes);
#pragma unroll
    for (int k = 0; k < 4; ++k) WgmmaValues(o_, p[k], v + (k * 2048 >> 4));
    WgmmaCommit();
  }

  __device__ __forceinline__ void AwaitValues(int stage) {
    WgmmaWait<0>();
    HoldSums(o_);
    Release(stage);
  }

  // Of a tile of values: zero weights do not make zeros of just anything. Every group does it for
  // itself, with the same zeros.
  __device__ __forceinline__ void ZeroOutside(int first) const {
    constexpr int kPieces = kHeadDim / 8;
#pragma unroll 1
    for (int i = thread_; i < kTileTokens * kPieces; i += kGroupThreads) {
      const int token = i / kPieces, piece = i % kPieces;
      if (first + token >= lo_ && first + token <= hi_) continue;
      ZeroShared16(Tile(ring_.stage) + piece / 8 * R::kHalfBytes + token * 128 +
                   (((piece ^ token) & 7) << 4));
    }
    sm90::FenceAsync();
    rows_.Sync();
  }

  __device__ __forceinline__ void AwaitRows() {
    rows_.Await();
    int limits[2] = {-1, INT_MAX};
#pragma unroll
    for (int i = 0; i < 2; ++i) {
      last_[i] = rows_.Position(i);
      first_[i] = FirstPosition(args_.window, last_[i]);
      if (last_[i] >= 0) {
        limits[0] = max(limits[0], first_[i]);
        limits[1] = min(limits[1], last_[i]);
      }
    }
    max_first_ = __reduce_max_sync(kAllLanes, limits[0]);
    min_last_ = __reduce_min_sync(kAllLanes, limits[1]);
    StartChunk();
  }

  __device__ __forceinline__ void StartChunk() {
#pragma unroll
    for (int i = 0; i < 2; ++i) {
      m_[i] = kNever;
      l_[i][0] = l_[i][1] = 0.0f;
    }
  }

  // Scores to weights; see Weigh in attention_tile.h.
  __device__ __forceinline__ void Weigh(float (&s)[32], int tile, float (&scale)[2],
                                        uint32_t (&p)[4][4]) {
    const int first_position = tile * kTileTokens;
    if (first_position + kTileTokens - 1 > min_last_ || first_position < max_first_) {
      const int column = first_position + 2 * (thread_ % 4);
#pragma unroll
      for (int i = 0; i < 32; ++i) {
        const int position = column + i / 4 * 8 + (i & 1);
        if (position < first_[(i >> 1) & 1] || position > last_[(i >> 1) & 1]) s[i] = kNever;
      }
    }
    float top[2] = {kNever, kNever};
#pragma unroll
    for (int i = 0; i < 32; ++i) top[(i >> 1) & 1] = fmaxf(top[(i >> 1) & 1], s[i]);
    float reference[2], sum[2][2] = {};
#pragma unroll
    for (int i = 0; i < 2; ++i) {
      top[i] = fmaxf(top[i], __shfl_xor_sync(kAllLanes, top[i], 1));
      top[i] = fmaxf(top[i], __shfl_xor_sync(kAllLanes, top[i], 2));
      top[i] = fmaxf(m_[i], __fmul_rn(top[i], args_.scale_log2));
      reference[i] = Reference(top[i]);
      scale[i] = Exp2(__fsub_rn(m_[i], reference[i]));
      m_[i] = top[i];
    }
#pragma unroll
    for (int i = 0; i < 32; i += 2) {
      const int row = (i >> 1) & 1;
      const float even = Weight(s[i], args_.scale_log2, reference[row]);
      const float odd = Weight(s[i + 1], args_.scale_log2, reference[row]);
      sum[row][0] = __fadd_rn(sum[row][0], even);
      sum[row][1] = __fadd_rn(sum[row][1], odd);
      p[i / 8][i / 2 % 4] = PackBF16(even, odd);
    }
#pragma unroll
    for (int i = 0; i < 2; ++i) {
      l_[i][0] = __fmaf_rn(l_[i][0], scale[i], sum[i][0]);
      l_[i][1] = __fmaf_rn(l_[i][1], scale[i], sum[i][1]);
    }
  }

  // m, l: of the chunk that ends. last: of the segment.
  __device__ __forceinline__ void EndChunk(int chunk, const float (&m)[2], const float (&l)[2][2],
                                           bool last) {
    float sums[2];
#pragma unroll
    for (int i = 0; i < 2; ++i) {
      sums[i] = __fadd_rn(l[i][0], l[i][1]);
      sums[i] = __fadd_rn(sums[i], __shfl_xor_sync(kAllLanes, sums[i], 1));
      sums[i] = __fadd_rn(sums[i], __shfl_xor_sync(kAllLanes, sums[i], 2));
    }
    if (is_prefix_) {
      MergePart(m, sums, last);
      if (last) {
        if (Item().n_segments == 1) {
          const float reciprocal[2] = {__frcp_rn(whole_[0].l), __frcp_rn(whole_[1].l)};
          rows_.Send(Item(), o_, reciprocal);
        } else {
          const float whole_m[2] = {whole_[0].m, whole_[1].m};
          const float whole_l[2] = {whole_[0].l, whole_[1].l};
          WritePart(chunk, whole_m, whole_l);
        }
      }
    } else {
      WritePart(chunk, m, sums);
    }
    if (!last) {
#pragma unroll
      for (int i = 0; i < kSums; ++i) o_[i] = 0.0f;
    }
  }

  // What the rows have of earlier chunks lies in shared memory; each thread touches its own. The
  // last time the merged values stay in o.
  __device__ __forceinline__ void MergePart(const float (&m)[2], const float (&sums)[2],
                                            bool last) {
    float4* const merged =  // [kSums / 4, kWarp]
        reinterpret_cast<float4*>(rows_.results()) + thread_ % kWarp;
    MergeWeights weights[2];
#pragma unroll
    for (int i = 0; i < 2; ++i) weights[i] = Merge(m[i], sums[i], whole_[i]);
#pragma unroll
    for (int i = 0; i < kSums; i += 4) {
      float4& place = merged[i / 4 * kWarp];
      const float4 before = any_merged_ ? place : make_float4(0.0f, 0.0f, 0.0f, 0.0f);
      o_[i] = MergeValue(before.x, o_[i], weights[0]);
      o_[i + 1] = MergeValue(before.y, o_[i + 1], weights[0]);
      o_[i + 2] = MergeValue(before.z, o_[i + 2], weights[1]);
      o_[i + 3] = MergeValue(before.w, o_[i + 3], weights[1]);
      if (!last) place = make_float4(o_[i], o_[i + 1], o_[i + 2], o_[i + 3]);
    }
    any_merged_ = true;
  }

  __device__ __forceinline__ void WritePart(int chunk, const float (&m)[2],
                                            const float (&sums)[2]) const {
    const AttentionSegment item = Item();
#pragma unroll
    for (int i = 0; i < 2; ++i) {
      int row, head;
      if (!rows_.LocateRow(item, i, row, head)) continue;
      const int64_t part = PartOf(args_, item, chunk, first_[i], last_[i], row, head);
      if (part < 0) continue;
      float* const to = args_.part_values + part * kHeadDim + 2 * (thread_ % 4);
#pragma unroll
      for (int n = 0; n < kHeadDim / 8; ++n) {
        *reinterpret_cast<float2*>(to + n * 8) =
            make_float2(o_[n * 4 + 2 * i], o_[n * 4 + 2 * i + 1]);
      }
      if (thread_ % 4 == 0) args_.part_sums[part] = make_float2(m[i], sums[i]);
    }
  }

  const AttentionArgs& args_;
  const int group_, thread_;
  typename R::R ring_;
  PairRows<kHeadDim> rows_;
  int index_;             // of the segment
  bool is_prefix_;
  int lo_, hi_;
  int first_[2], last_[2];    // positions that the thread's pairs read
  int max_first_, min_last_;  // over the warp's pairs
  float m_[2], l_[2][2];
  float o_[kSums];
  Softmax whole_[2];
  bool any_merged_;
};

template <int kHeadDim, int kGroups, int kStages>
__global__ void __launch_bounds__((kGroups + 1) * kGroupThreads, 1)
    WideKernel(const __grid_constant__ AttentionArgs args) {
  BeginOverlapping();
  GATEFOLD_DYNAMIC_SHARED(__align__(1024) unsigned char, shared);
  using R = Room<kHeadDim, kGroups, kStages>;
  const typename R::R ring{shared + R::kRing};
  if (threadIdx.x == 0) ring.Init(4 * kGroups);  // a warp arrives once
  __syncthreads();
  constexpr int kThreads = kGroups * kGroupThreads;
  if (threadIdx.x >= kThreads) {
    sm90::GiveRegisters<kGroups == 2 ? 40 : 32>();
    if (threadIdx.x < kThreads + kWarp) sm90::FillRing<kHeadDim, false>(args, ring);
  } else {
    sm90::TakeRegisters<kGroups == 2 ? 232 : 160>();
    GroupWorker<kHeadDim, kGroups, kStages>(args, shared).Run();
    FinishSplitTiles<kHeadDim, 8>(args, static_cast<int>(threadIdx.x), kThreads,
                                  reinterpret_cast<int*>(shared + R::kIsLast),
                                  [] { SyncGroups<kGroups>(); });
  }
}

template <int kHeadDim, int kGroups, int kStages>
cudaError_t Launch(const AttentionArgs& args, int n_workers, cudaStream_t stream) {
  constexpr int kBytes = Room<kHeadDim, kGroups, kStages>::kBytes;
  const auto kernel = WideKernel<kHeadDim, kGroups, kStages>;
  static std::atomic<bool> is_allowed = false;
  GF_CUDA_RETURN_IF_ERROR(AllowShared(kernel, kBytes, true, &is_allowed));
  return LaunchKernel(kernel,
                      {.n_blocks = n_workers,
                       .n_threads = (kGroups + 1) * kGroupThreads,
                       .shared_bytes = kBytes,
                       .overlaps = kMayOverlap},
                      stream, args);
}

constexpr int kGroups = WideTilePairs(AttentionKernels::kHopper) / 64;

}  // namespace

cudaError_t LaunchHopperWide(int head_dim, const AttentionArgs& args, int n_workers,
                             cudaStream_t stream) {
  return head_dim == 128 ? Launch<128, kGroups, 5>(args, n_workers, stream)
                         : Launch<64, kGroups, 12>(args, n_workers, stream);
}

}  // namespace gatefold::cuda
