#pragma once

// How parts of a softmax over a cut context become one. Device code only. Whoever merges
// does it through here, so a row's bits do not tell whether that was the block that made the parts.
//
// A part is (m, l, o): the highest score, the sum of 2^(score - m), and that sum over values.
// Scores are in units of log2. A part without any key is (-inf, 0, 0) and leaves the bits of what
// it is merged into.

#include <limits>

#include "gatefold/cuda/warp_ops.h"

namespace gatefold::cuda {

constexpr float kNever = -std::numeric_limits<float>::infinity();

// What exponents are taken relative to: without any key yet, -inf - -inf would be NaN.
__device__ __forceinline__ float Reference(float m) { return m == kNever ? 0.0f : m; }

// Of a score before it is scaled, which one rounding does together with the difference.
__device__ __forceinline__ float Weight(float score, float scale_log2, float reference) {
  return Exp2(__fmaf_rn(score, scale_log2, -reference));
}

struct Softmax {
  float m = kNever;
  float l = 0.0f;
};

struct MergeWeights {
  float whole;
  float part;
};

__device__ __forceinline__ MergeWeights Merge(float m, float l, Softmax& whole) {
  const float top = fmaxf(whole.m, m);
  const float reference = Reference(top);
  const MergeWeights weights = {Exp2(__fsub_rn(whole.m, reference)), Exp2(__fsub_rn(m, reference))};
  whole.l = __fmaf_rn(whole.l, weights.whole, __fmul_rn(l, weights.part));
  whole.m = top;
  return weights;
}

__device__ __forceinline__ float MergeValue(float whole, float part, const MergeWeights& weights) {
  return __fmaf_rn(whole, weights.whole, __fmul_rn(part, weights.part));
}

// The added zero turns -0 into +0: whether an underflow's sign survives depends on how many empty
// parts came after it, which a row must not show.
__device__ __forceinline__ float Normalised(float value, float reciprocal) {
  return __fadd_rn(__fmul_rn(value, reciprocal), 0.0f);
}

// The first position that a row reads.
__device__ __forceinline__ int FirstPosition(int window, int position) {
  return window > 0 && position >= window ? position - window + 1 : 0;
}

}  // namespace gatefold::cuda
