#pragma once

// What benchmarks on a device share: random data that no cache holds, and times by events.

#include <cuda_runtime.h>

#include <algorithm>
#include <cstdint>
#include <cstdio>
#include <cstdlib>
#include <functional>
#include <vector>

namespace gatefold::cuda {

inline void Check(cudaError_t error, const char* what) {
  if (error == cudaSuccess) return;
  std::fprintf(stderr, "%s: %s\n", what, cudaGetErrorString(error));
  std::exit(1);
}
#define GF_CHECK_CUDA(expression) ::gatefold::cuda::Check((expression), #expression)

// Device memory to the end of the program.
template <typename T>
T* Allocate(size_t n) {
  void* p = nullptr;
  GF_CHECK_CUDA(cudaMalloc(&p, n * sizeof(T)));
  return static_cast<T*>(p);
}

// Median seconds of one call of `run(i)`, of `rounds` rounds of `calls` calls that follow one another
// without a gap. i counts calls, so that they can take turns over inputs.
inline double MedianSeconds(int rounds, int calls, const std::function<void(int)>& run) {
  cudaEvent_t begin, end;
  GF_CHECK_CUDA(cudaEventCreate(&begin));
  GF_CHECK_CUDA(cudaEventCreate(&end));
  int i = 0;
  for (; i < calls; ++i) run(i);  // warm-up
  std::vector<double> seconds;
  for (int round = 0; round < rounds; ++round) {
    run(i++);  // so that the device is busy when the clock starts
    GF_CHECK_CUDA(cudaEventRecord(begin));
    for (int call = 0; call < calls; ++call) run(i++);
    GF_CHECK_CUDA(cudaEventRecord(end));
    GF_CHECK_CUDA(cudaEventSynchronize(end));
    float milliseconds = 0;
    GF_CHECK_CUDA(cudaEventElapsedTime(&milliseconds, begin, end));
    seconds.push_back(milliseconds * 1e-3 / calls);
  }
  std::sort(seconds.begin(), seconds.end());
  return seconds[seconds.size() / 2];
}

// Bytes per second of a large copy on the device, read and written.
inline double CopyBandwidth() {
  constexpr size_t kBytes = size_t{2} << 30;
  static char* from = Allocate<char>(kBytes);
  static char* to = Allocate<char>(kBytes);
  const double seconds = MedianSeconds(
      10, 3, [&](int) { GF_CHECK_CUDA(cudaMemcpyAsync(to, from, kBytes, cudaMemcpyDeviceToDevice)); });
  return 2.0 * kBytes / seconds;
}

}  // namespace gatefold::cuda
