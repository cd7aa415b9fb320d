#include "gatefold/kernels/rows.h"

#include "gatefold/kernels/isa.h"

namespace gatefold::kernels {
namespace {
// Fewer rows than this are done before a second thread has heard of them.
constexpr int64_t kRowsWorthThreads = 64;
}  // namespace

void RmsNorm(const float* x, const float* weight, float eps, float* y, int64_t n_rows, int64_t d,
             ThreadPool* threads) {
  ParallelFor(n_rows >= kRowsWorthThreads ? threads : nullptr, n_rows, 16,
              [&](int64_t begin, int64_t end) {
                for (int64_t r = begin; r < end; ++r) {
                  Kernels().rms_norm(x + r * d, weight, eps, y + r * d, d);
                }
              });
}

void Rope(float* x, int n_heads, int head_dim, const float* cos, const float* sin) {
  const int half = head_dim / 2;
  for (int head = 0; head < n_heads; ++head) {
    float* a = x + static_cast<int64_t>(head) * head_dim;
    float* b = a + half;
    for (int i = 0; i < half; ++i) {
      const float first = a[i] * cos[i] - b[i] * sin[i];
      const float second = b[i] * cos[i] + a[i] * sin[i];
      a[i] = first;
      b[i] = second;
    }
  }
}

void Fold(const float* answers, const float* weights, float* x, int64_t n_rows, int top_k,
          int64_t d, ThreadPool* threads) {
  ParallelFor(n_rows >= kRowsWorthThreads ? threads : nullptr, n_rows, 16,
              [&](int64_t begin, int64_t end) {
                for (int64_t r = begin; r < end; ++r) {
                  Kernels().fold(answers + r * top_k * d, weights + r * top_k, top_k, x + r * d, d);
                }
              });
}

void AddTo(const float* y, float* x, size_t n) {
  for (size_t i = 0; i < n; ++i) x[i] += y[i];
}

void ToBF16(const float* x, size_t n, uint16_t* to) {
  Kernels().to_bf16(x, static_cast<int64_t>(n), to);
}

void FromBF16(const void* halves, size_t n, float* to) {
  Kernels().from_bf16(static_cast<const char*>(halves), static_cast<int64_t>(n), to);
}

void RoundToBF16(float* x, size_t n, ThreadPool* threads) {
  constexpr size_t kFloatsWorthThreads = 1 << 17;
  ParallelFor(n >= kFloatsWorthThreads ? threads : nullptr, static_cast<int64_t>(n), 1 << 15,
              [x](int64_t begin, int64_t end) { Kernels().round_to_bf16(x + begin, end - begin); });
}

}  // namespace gatefold::kernels
