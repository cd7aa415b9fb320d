#include "bench/kernels/machine_limits.h"

#include <immintrin.h>

#include <atomic>
#include <chrono>
#include <cstdint>
#include <cstring>

namespace gatefold::bench {
namespace {

constexpr size_t kMemoryBytes = size_t{512} << 20;  // well beyond any last-level cache
constexpr size_t kSampleBytes = size_t{16} << 20;   // per thread
constexpr int kMultiplyAdds = 200000;

std::atomic<uint64_t> g_sink{0};  // keeps results alive

double Seconds(std::chrono::steady_clock::duration time) {
  return std::chrono::duration<double>(time).count();
}

void Read(const char* bytes, size_t n) {
  const uint64_t* words = reinterpret_cast<const uint64_t*>(bytes);
  uint64_t sums[16] = {};
  for (size_t i = 0; i < n / 8; i += 16) {
    for (int j = 0; j < 16; ++j) sums[j] |= words[i + j];
  }
  for (int j = 1; j < 16; ++j) sums[0] |= sums[j];
  g_sink.fetch_or(sums[0], std::memory_order_relaxed);
}

// Each returns how many floats its registers multiply and add in a step. Sixteen independent sums
// hide the latency of any core there is.
__attribute__((target("avx512f"))) int MultiplyAdd512() {
  __m512 sums[16], x = _mm512_set1_ps(1.0001f), y = _mm512_set1_ps(1e-6f);
  for (auto& sum : sums) sum = x;
  for (int i = 0; i < kMultiplyAdds; ++i) {
    for (auto& sum : sums) sum = _mm512_fmadd_ps(x, y, sum);
    asm volatile("" : "+v"(x), "+v"(y));
  }
  for (int k = 1; k < 16; ++k) sums[0] = _mm512_add_ps(sums[0], sums[k]);
  g_sink.fetch_or(static_cast<uint64_t>(_mm512_reduce_add_ps(sums[0])), std::memory_order_relaxed);
  return 16 * 16;
}

__attribute__((target("avx2,fma"))) int MultiplyAdd256() {
  __m256 sums[12], x = _mm256_set1_ps(1.0001f), y = _mm256_set1_ps(1e-6f);
  for (auto& sum : sums) sum = x;
  for (int i = 0; i < kMultiplyAdds; ++i) {
    for (auto& sum : sums) sum = _mm256_fmadd_ps(x, y, sum);
    asm volatile("" : "+x"(x), "+x"(y));
  }
  for (int k = 1; k < 12; ++k) sums[0] = _mm256_add_ps(sums[0], sums[k]);
  g_sink.fetch_or(static_cast<uint64_t>(sums[0][0]), std::memory_order_relaxed);
  return 12 * 8;
}

int MultiplyAdd128() {
  __m128 sums[8], x = _mm_set1_ps(1.0001f), y = _mm_set1_ps(1e-6f);
  for (auto& sum : sums) sum = x;
  for (int i = 0; i < kMultiplyAdds; ++i) {
    for (auto& sum : sums) sum = _mm_add_ps(_mm_mul_ps(x, y), sum);
    asm volatile("" : "+x"(x), "+x"(y));
  }
  for (int k = 1; k < 8; ++k) sums[0] = _mm_add_ps(sums[0], sums[k]);
  g_sink.fetch_or(static_cast<uint64_t>(sums[0][0]), std::memory_order_relaxed);
  return 8 * 4;
}

int MultiplyAdd() {
  if (__builtin_cpu_supports("avx512f")) return MultiplyAdd512();
  if (__builtin_cpu_supports("avx2") && __builtin_cpu_supports("fma")) return MultiplyAdd256();
  return MultiplyAdd128();
}

}  // namespace

MachineLimits::MachineLimits(ThreadPool* threads) : threads_(threads), memory_(kMemoryBytes) {
  std::memset(memory_.data(), 1, memory_.size_bytes());
}

double MachineLimits::SampleReadBytesPerSecond() {
  const int n = threads_->n_threads();
  const auto begin = std::chrono::steady_clock::now();
  threads_->ParallelFor(n, 1, [this](int64_t first, int64_t end) {
    for (int64_t i = first; i < end; ++i) {
      Read(memory_.as<char>() + (at_ + i * kSampleBytes) % kMemoryBytes, kSampleBytes);
    }
  });
  const double seconds = Seconds(std::chrono::steady_clock::now() - begin);
  at_ = (at_ + n * kSampleBytes) % kMemoryBytes;
  return static_cast<double>(n * kSampleBytes) / seconds;
}

double MachineLimits::SampleFlopsPerSecond() {
  const int n = threads_->n_threads();
  std::atomic<int> floats{0};
  const auto begin = std::chrono::steady_clock::now();
  threads_->ParallelFor(n, 1, [&floats](int64_t first, int64_t end) {
    for (int64_t i = first; i < end; ++i) floats = MultiplyAdd();
  });
  const double seconds = Seconds(std::chrono::steady_clock::now() - begin);
  return 2.0 * n * floats * kMultiplyAdds / seconds;
}

}  // namespace gatefold::bench
