#include "gatefold/cuda/block_sum.cuh"
#include "gatefold/cuda/launch.h"
#include "gatefold/cuda/sampling.h"
#include "gatefold/cuda/warp_ops.h"

namespace gatefold::cuda {
namespace {

constexpr int kThreads = 512;
constexpr int kWarps = kThreads / kWarp;
constexpr float kLog2E = 1.4426950408889634f;
constexpr float kOne = 1099511627776.0f;  // 2^40: the likeliest token's weight
constexpr unsigned kImpossible = 0x007fffffu;  // Key(-inf)
constexpr unsigned kInfinite = 0xff800000u;    // Key(inf)

// Unsigned numbers in the order of the logits. -0 is 0; NaN is -inf.
__device__ __forceinline__ unsigned Key(float logit) {
  if (logit != logit) return kImpossible;
  const unsigned bits = __float_as_uint(__fadd_rn(logit, 0.0f));
  return bits & 0x80000000u ? ~bits : bits | 0x80000000u;
}

__device__ __forceinline__ float FromKey(unsigned key) {
  return __uint_as_float(key & 0x80000000u ? key & 0x7fffffffu : ~key);
}

// (key, token) of the highest logit, the lower id among equals, as key << 32 | ~token.
__device__ __forceinline__ uint64_t BlockBest(const float* logits, int vocab_size, bool* has_nan) {
  __shared__ uint64_t bests[kWarps];
  uint64_t best = 0;
  bool is_nan = false;
#pragma unroll 4
  for (int i = static_cast<int>(threadIdx.x); i < vocab_size; i += kThreads) {
    const float logit = logits[i];
    is_nan |= logit != logit;
    const uint64_t rank =
        static_cast<uint64_t>(Key(logit)) << 32 | (0xffffffffu - static_cast<unsigned>(i));
    best = rank > best ? rank : best;
  }
#pragma unroll
  for (int step = kWarp / 2; step > 0; step /= 2) {
    const uint64_t other = __shfl_xor_sync(kAllLanes, best, step);
    best = other > best ? other : best;
  }
  if (threadIdx.x % kWarp == 0) bests[threadIdx.x / kWarp] = best;
  *has_nan = __syncthreads_count(is_nan) > 0;
  best = bests[0];
#pragma unroll
  for (int i = 1; i < kWarps; ++i) best = bests[i] > best ? bests[i] : best;
  return best;
}

__device__ __forceinline__ int TokenOf(uint64_t best) {
  return static_cast<int>(0xffffffffu - static_cast<unsigned>(best));
}

// 53 bits of Philox4x32-10 with the seed as key and the position as counter, as the CPU's
// UniformAt, before it is scaled by 2^-53.
__device__ __forceinline__ uint64_t UniformBits(uint64_t seed, uint64_t position) {
  unsigned c0 = static_cast<unsigned>(position), c1 = static_cast<unsigned>(position >> 32);
  unsigned c2 = 0, c3 = 0;
  unsigned key0 = static_cast<unsigned>(seed), key1 = static_cast<unsigned>(seed >> 32);
  for (int round = 0; round < 10; ++round) {
    const uint64_t product0 = uint64_t{0xD2511F53u} * c0;
    const uint64_t product1 = uint64_t{0xCD9E8D57u} * c2;
    c0 = static_cast<unsigned>(product1 >> 32) ^ c1 ^ key0;
    c1 = static_cast<unsigned>(product1);
    c2 = static_cast<unsigned>(product0 >> 32) ^ c3 ^ key1;
    c3 = static_cast<unsigned>(product0);
    key0 += 0x9E3779B9u;
    key1 += 0xBB67AE85u;
  }
  return (static_cast<uint64_t>(c0) << 32 | c1) >> 11;
}

// The tokens of one row that may still be drawn: a prefix of the order likeliest first, ties to
// the lower id. All threads of the block call the members together, with equal arguments.
class Candidates {
 public:
  // A token's weight is 2^(scale (logit - highest)).
  __device__ __forceinline__ Candidates(const float* logits, int vocab_size, float highest,
                                        float scale)
      : logits_(logits), vocab_size_(vocab_size), highest_(highest), scale_(scale) {}

  __device__ __forceinline__ void KeepTopK(int top_k) {
    if (top_k <= 0 || static_cast<uint64_t>(top_k) >= Sum<false>(0)) return;
    CutAfter<false>(static_cast<uint64_t>(top_k) - 1);
    likeliest_first_ = true;
  }

  // The shortest prefix whose weight reaches top_p of the total.
  __device__ __forceinline__ void KeepTopP(float top_p) {
    if (top_p >= 1.0f) return;
    const double wanted = ceil(static_cast<double>(top_p) * static_cast<double>(Sum<true>(0)));
    CutAfter<true>(wanted > 1.0 ? static_cast<uint64_t>(wanted) - 1 : 0);
    likeliest_first_ = true;
  }

  __device__ __forceinline__ void KeepMinP(float min_p) {
    least_weight_ = __float2ull_rn(__fmul_rn(min_p, kOne));
  }

  // The token at a share of bits / 2^53 of the total weight.
  __device__ __forceinline__ int Draw(uint64_t bits) {
    const uint64_t target = __umul64hi(bits << 11, Sum<true>(0));
    if (!likeliest_first_) return FindById(target);
    CutAfter<true>(target);
    return last_token_;
  }

 private:
  __device__ __forceinline__ uint64_t Weight(float logit) const {
    const float weight = Exp2(__fmul_rn(__fsub_rn(logit, highest_), scale_));
    return __float2ull_rn(__fmul_rn(weight, kOne));
  }

  // What the token counts for: 1, or its weight; 0 if it is out.
  template <bool kByWeight>
  __device__ __forceinline__ uint64_t Measure(int token, float logit, unsigned key) const {
    if (key <= kImpossible || key < last_key_) return 0;
    if (key == last_key_ && token > last_token_) return 0;
    if (!kByWeight && least_weight_ == 0) return 1;
    const uint64_t weight = Weight(logit);
    if (weight < least_weight_) return 0;
    return kByWeight ? weight : 1;
  }

  // Of the tokens whose key is at least `least_key`.
  template <bool kByWeight>
  __device__ __forceinline__ uint64_t Sum(unsigned least_key) const {
    uint64_t sum = 0;
#pragma unroll 4
    for (int i = static_cast<int>(threadIdx.x); i < vocab_size_; i += kThreads) {
      const float logit = logits_[i];
      const unsigned key = Key(logit);
      if (key >= least_key) sum += Measure<kByWeight>(i, logit, key);
    }
    return BlockSum<kThreads>(sum);
  }

  // Makes the last candidate the first one, likeliest first, with which the measure exceeds
  // `target`, which is below the measure of all.
  template <bool kByWeight>
  __device__ __forceinline__ void CutAfter(uint64_t target) {
    unsigned key = 0;  // the highest for which the tokens at or above it exceed the target
    for (unsigned bit = 0x80000000u; bit != 0; bit >>= 1) {
      if (Sum<kByWeight>(key | bit) > target) key |= bit;
    }
    const uint64_t before = key == 0xffffffffu ? 0 : Sum<kByWeight>(key + 1);
    const uint64_t each = kByWeight ? Weight(FromKey(key)) : 1;
    const int token = FindTie(key, (target - before) / each);
    last_key_ = key;
    last_token_ = token;
  }

  // The token with `rank` tokens of this key before it.
  __device__ __forceinline__ int FindTie(unsigned key, uint64_t rank) const {
    __shared__ int found;
    for (int begin = 0; begin < vocab_size_; begin += kThreads) {
      const int token = begin + static_cast<int>(threadIdx.x);
      const bool ties = token < vocab_size_ && Key(logits_[token]) == key;
      const unsigned n = __syncthreads_count(ties);
      if (rank >= n) {
        rank -= n;
        continue;
      }
      const uint64_t before = CountBefore(ties);
      if (ties && before == rank) found = token;
      break;
    }
    __syncthreads();
    const int token = found;
    __syncthreads();
    return token;
  }

  // Threads below this one for which `is` holds.
  __device__ __forceinline__ uint64_t CountBefore(bool is) const {
    __shared__ int counts[kWarps];
    const unsigned lane = threadIdx.x % kWarp, warp = threadIdx.x / kWarp;
    const unsigned ballot = __ballot_sync(kAllLanes, is);
    if (lane == 0) counts[warp] = __popc(ballot);
    __syncthreads();
    int n = __popc(ballot & ((1u << lane) - 1));
    for (unsigned i = 0; i < warp; ++i) n += counts[i];
    return static_cast<uint64_t>(n);
  }

  // The first token by id with which the weight exceeds `target`. Each warp adds up a range of
  // ids; the one whose range it falls into looks closer.
  __device__ __forceinline__ int FindById(uint64_t target) const {
    __shared__ uint64_t sums[kWarps];
    __shared__ int found;
    const int lane = static_cast<int>(threadIdx.x) % kWarp;
    const int warp = static_cast<int>(threadIdx.x) / kWarp;
    const int each = (vocab_size_ + kThreads - 1) / kThreads * kWarp;
    const int begin = warp * each, end = min(vocab_size_, begin + each);
    uint64_t sum = 0;
    for (int i = begin + lane; i < end; i += kWarp) sum += WeightOf(i);
#pragma unroll
    for (int step = kWarp / 2; step > 0; step /= 2) sum += __shfl_xor_sync(kAllLanes, sum, step);
    if (lane == 0) sums[warp] = sum;
    __syncthreads();
    uint64_t before = 0;
    for (int i = 0; i < warp; ++i) before += sums[i];
    if (before <= target && target < before + sum) {
      for (int i = begin; i < end; i += kWarp) {
        uint64_t up_to = i + lane < end ? WeightOf(i + lane) : 0;
#pragma unroll
        for (int step = 1; step < kWarp; step *= 2) {
          const uint64_t lower = __shfl_up_sync(kAllLanes, up_to, step);
          if (lane >= step) up_to += lower;
        }
        const unsigned beyond = __ballot_sync(kAllLanes, before + up_to > target);
        if (beyond != 0) {
          if (lane == 0) found = i + __ffs(static_cast<int>(beyond)) - 1;
          break;
        }
        before += __shfl_sync(kAllLanes, up_to, kWarp - 1);
      }
    }
    __syncthreads();
    return found;
  }

  __device__ __forceinline__ uint64_t WeightOf(int token) const {
    const float logit = logits_[token];
    return Measure<true>(token, logit, Key(logit));
  }

  const float* const logits_;
  const int vocab_size_;
  const float highest_;
  const float scale_;
  uint64_t least_weight_ = 0;
  unsigned last_key_ = 0;  // the last candidate
  int last_token_ = 0x7fffffff;
  bool likeliest_first_ = false;  // how the CPU's candidates lie then
};

struct SampleArgs {
  const float* logits;
  int vocab_size;
  const SampleRow* rows;
  DrawnToken* drawn;
};

__global__ void __launch_bounds__(kThreads) SampleKernel(const __grid_constant__ SampleArgs args) {
  BeginOverlapping();
  const float* logits = args.logits + static_cast<int64_t>(blockIdx.x) * args.vocab_size;
  bool has_nan;
  const uint64_t best = BlockBest(logits, args.vocab_size, &has_nan);
  const unsigned key = static_cast<unsigned>(best >> 32);
  int token = TokenOf(best);
  const SampleRow row = args.rows[blockIdx.x];
  if (row.temperature > 0.0f && key > kImpossible && key < kInfinite) {
    // Bounded, so that 0 times it is 0.
    const float scale = fminf(__fdiv_rn(kLog2E, row.temperature), 1e30f);
    Candidates candidates(logits, args.vocab_size, FromKey(key), scale);
    candidates.KeepTopK(row.top_k);
    candidates.KeepTopP(row.top_p);
    candidates.KeepMinP(row.min_p);
    token = candidates.Draw(UniformBits(row.seed, static_cast<uint64_t>(row.position) + 1));
  }
  if (threadIdx.x == 0) args.drawn[blockIdx.x] = {token, TokenOf(best), has_nan};
}

}  // namespace

cudaError_t Sample(const float* logits, int64_t n_rows, int64_t vocab_size, const SampleRow* rows,
                   DrawnToken* drawn, cudaStream_t stream) {
  if (logits == nullptr || rows == nullptr || drawn == nullptr || n_rows < 0 || vocab_size < 1 ||
      vocab_size > kMaxSampleVocab) {
    return cudaErrorInvalidValue;
  }
  return LaunchKernel(SampleKernel, {.n_blocks = n_rows, .n_threads = kThreads, .overlaps = kMayOverlap}, stream,
                      SampleArgs{.logits = logits,
                                 .vocab_size = static_cast<int>(vocab_size),
                                 .rows = rows,
                                 .drawn = drawn});
}

}  // namespace gatefold::cuda
