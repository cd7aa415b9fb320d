#pragma once

#include <benchmark/benchmark.h>

#include "absl/functional/function_ref.h"
#include "bench/kernels/machine_limits.h"
#include "gatefold/base/thread_pool.h"

namespace gatefold::bench {

// What a call must at least read from memory and compute.
struct Work {
  double bytes = 0;
  double flops = 0;
};

// Times `run` and, beside every call, the machine's limits. Reports the medians:
//   GB/s, GFLOP/s            of the kernel
//   limit_GB/s, limit_GFLOP  of the machine
//   share                    the time the limits allow for the work / the time it took
void MeasureAgainstLimits(benchmark::State& state, MachineLimits* limits, const Work& work,
                          absl::FunctionRef<void()> run);

// What the benchmarks share: made once, in main.
struct Bench {
  ThreadPool* threads;
  MachineLimits* limits;
};

void RegisterMatMul(const Bench& bench);
void RegisterExpertMlp(const Bench& bench);
void RegisterAttention(const Bench& bench);
void RegisterPool(const Bench& bench);

}  // namespace gatefold::bench
