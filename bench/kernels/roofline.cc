#include "bench/kernels/roofline.h"

#include <algorithm>
#include <chrono>
#include <vector>

namespace gatefold::bench {
namespace {

double Median(std::vector<double> values) {
  if (values.empty()) return 0;
  std::nth_element(values.begin(), values.begin() + values.size() / 2, values.end());
  return values[values.size() / 2];
}

}  // namespace

void MeasureAgainstLimits(benchmark::State& state, MachineLimits* limits, const Work& work,
                          absl::FunctionRef<void()> run) {
  run();  // first use grows buffers
  std::vector<double> times, reads, computes, shares;
  for (auto _ : state) {
    const double read = limits->SampleReadBytesPerSecond();
    const double compute = limits->SampleFlopsPerSecond();
    const auto begin = std::chrono::steady_clock::now();
    run();
    const double seconds =
        std::chrono::duration<double>(std::chrono::steady_clock::now() - begin).count();
    state.SetIterationTime(seconds);
    times.push_back(seconds);
    reads.push_back(read);
    computes.push_back(compute);
    shares.push_back(std::max(work.bytes / read, work.flops / compute) / seconds);
  }
  const double seconds = Median(times);
  state.counters["GB/s"] = work.bytes / seconds / 1e9;
  state.counters["GFLOP/s"] = work.flops / seconds / 1e9;
  state.counters["limit_GB/s"] = Median(reads) / 1e9;
  state.counters["limit_GFLOP/s"] = Median(computes) / 1e9;
  state.counters["share"] = Median(shares);
}

}  // namespace gatefold::bench
