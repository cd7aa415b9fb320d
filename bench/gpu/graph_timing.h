#pragma once

// Times of what a server would capture into a CUDA graph.

#include <cuda_runtime.h>

#include <algorithm>
#include <functional>
#include <vector>

#include "bench/gpu/gpu_bench.h"

namespace gatefold::cuda {

struct Times {
  double median = 0, lowest = 0, highest = 0;  // microseconds
};

// Runs `work(stream, turn)` for turns 0 to n_turns - 1 as one CUDA graph, so that gaps between
// launches are those of a captured step. Median over `repeats` replays of the time of one turn.
inline Times TimeGraph(int n_turns, int repeats,
                       const std::function<void(cudaStream_t, int)>& work) {
  cudaStream_t stream;
  GF_CHECK_CUDA(cudaStreamCreate(&stream));
  work(stream, 0);  // loads the module outside of the capture
  GF_CHECK_CUDA(cudaStreamSynchronize(stream));
  cudaGraph_t graph;
  cudaGraphExec_t exec;
  GF_CHECK_CUDA(cudaStreamBeginCapture(stream, cudaStreamCaptureModeThreadLocal));
  for (int turn = 0; turn < n_turns; ++turn) work(stream, turn);
  GF_CHECK_CUDA(cudaStreamEndCapture(stream, &graph));
  GF_CHECK_CUDA(cudaGraphInstantiate(&exec, graph, 0));
  cudaEvent_t begin, end;
  GF_CHECK_CUDA(cudaEventCreate(&begin));
  GF_CHECK_CUDA(cudaEventCreate(&end));
  for (int i = 0; i < 3; ++i) GF_CHECK_CUDA(cudaGraphLaunch(exec, stream));
  std::vector<double> times;
  for (int i = 0; i < repeats; ++i) {
    GF_CHECK_CUDA(cudaEventRecord(begin, stream));
    GF_CHECK_CUDA(cudaGraphLaunch(exec, stream));
    GF_CHECK_CUDA(cudaEventRecord(end, stream));
    GF_CHECK_CUDA(cudaEventSynchronize(end));
    float milliseconds = 0;
    GF_CHECK_CUDA(cudaEventElapsedTime(&milliseconds, begin, end));
    times.push_back(1e3 * milliseconds / n_turns);
  }
  std::sort(times.begin(), times.end());
  GF_CHECK_CUDA(cudaEventDestroy(begin));
  GF_CHECK_CUDA(cudaEventDestroy(end));
  GF_CHECK_CUDA(cudaGraphExecDestroy(exec));
  GF_CHECK_CUDA(cudaGraphDestroy(graph));
  GF_CHECK_CUDA(cudaStreamDestroy(stream));
  return {times[times.size() / 2], times.front(), times.back()};
}

}  // namespace gatefold::cuda
