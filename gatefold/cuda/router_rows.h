#pragma once

#include <cuda_runtime_api.h>

#include <cstdint>

namespace gatefold::cuda {

// What a router computes of rows, for rows that stay on the device: norm, gate, fold. With the bits
// that the CPUs' kernels give (gatefold/kernels/), so that it does not show where a router's rows
// are: sums have the order of the virtual vector of 16 lanes, and exp is the same polynomial. (NaN
// stays NaN, with other bits.)
//
// Pointers are device memory aligned to 16 bytes; d is a multiple of 8, at most kMaxRouterWidth.
// Launchers enqueue on `stream` and neither wait nor allocate. Errors: cudaErrorInvalidValue for a
// null or misaligned pointer or such a number, before anything is enqueued; else what the launch
// returned. n_rows 0 is nothing. Threads: safe, no state.

inline constexpr int64_t kMaxRouterWidth = 24 * 1024;
inline constexpr int kMaxRouterExperts = 4096;
inline constexpr int kMaxRouterTopK = 64;

// h = x / sqrt(mean(x^2) + eps) * weight. x, h: [n_rows, d]. weight: [d].
cudaError_t RouterNorm(const float* x, const float* weight, float eps, float* h, int64_t n_rows,
                       int64_t d, cudaStream_t stream);

// logits = gate h. h: [n_rows, d]. gate: [n_experts, d]. logits: [n_rows, n_experts].
cudaError_t GateLogits(const float* h, const float* gate, float* logits, int64_t n_rows, int64_t d,
                       int n_experts, cudaStream_t stream);

// See GateTopK in gatefold/kernels/gate.h; here experts come in ascending order.
// logits: [n_rows, n_experts]. experts, weights: [n_rows, top_k], out.
cudaError_t GateTopK(const float* logits, int64_t n_rows, int n_experts, int top_k,
                     int32_t* experts, float* weights, cudaStream_t stream);

// A dense layer's routes: every row to all slices, each with weight 1.
// experts, weights: [n_rows, n_slices], out.
cudaError_t RouteToAll(int64_t n_rows, int n_slices, int32_t* experts, float* weights,
                       cudaStream_t stream);

// x[r] += sum over k of weights[r, k] * answers[r, k], in the order of k. round_answers: answers
// count as their nearest bfloat16. answers: [n_rows, top_k, d]. x: [n_rows, d].
cudaError_t FoldAnswers(const float* answers, const float* weights, bool round_answers, float* x,
                        int64_t n_rows, int top_k, int64_t d, cudaStream_t stream);

}  // namespace gatefold::cuda
