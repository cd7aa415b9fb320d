// What one loop over the threads costs beside its work.

#include <atomic>

#include "bench/kernels/roofline.h"

namespace gatefold::bench {
namespace {

void LoopBench(benchmark::State& state, ThreadPool* threads) {
  // Every thread has something to do, or the loop would be over before the others came.
  const int n = threads->n_threads();
  std::atomic<int> n_arrived{0};
  for (auto _ : state) {
    n_arrived = 0;
    threads->ParallelFor(n, 1, [&](int64_t, int64_t) {
      n_arrived.fetch_add(1);
      while (n_arrived.load(std::memory_order_relaxed) < n) __builtin_ia32_pause();
    });
  }
}

}  // namespace

void RegisterPool(const Bench& bench) {
  benchmark::RegisterBenchmark("pool/all_threads_meet", LoopBench, bench.threads)
      ->UseRealTime()
      ->Unit(benchmark::kMicrosecond);
}

}  // namespace gatefold::bench
