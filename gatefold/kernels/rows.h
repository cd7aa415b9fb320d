#pragma once

// What is done row by row: norm, rotation, fold, rounding.

#include <cstddef>
#include <cstdint>

#include "gatefold/base/thread_pool.h"

namespace gatefold::kernels {

// y = x / sqrt(mean(x^2) + eps) * weight, for each of n_rows rows of d. y may be x.
void RmsNorm(const float* x, const float* weight, float eps, float* y, int64_t n_rows, int64_t d,
             ThreadPool* threads = nullptr);

// Turns the pairs (x[i], x[i + d/2]) of each of n_heads heads by one position's angles.
// cos, sin: [head_dim / 2], attention factor included.
void Rope(float* x, int n_heads, int head_dim, const float* cos, const float* sin);

// x[r] += sum over k of weights[r, k] * answers[r, k], added in the order of k: ascending expert
// id. answers: [n_rows, top_k, d]. weights: [n_rows, top_k]. x: [n_rows, d].
void Fold(const float* answers, const float* weights, float* x, int64_t n_rows, int top_k,
          int64_t d, ThreadPool* threads);

// x += y, n floats.
void AddTo(const float* y, float* x, size_t n);

// To the nearest bfloat16, ties to even; NaN stays NaN. n floats.
void ToBF16(const float* x, size_t n, uint16_t* to);
// halves: n bfloat16, at any address.
void FromBF16(const void* halves, size_t n, float* to);
// To the nearest bfloat16, kept as float32.
void RoundToBF16(float* x, size_t n, ThreadPool* threads = nullptr);

}  // namespace gatefold::kernels
