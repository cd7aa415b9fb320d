#pragma once

#include <cstdint>
#include <vector>

#include "cli/bench_report.h"
#include "cli/connection.h"

namespace gatefold::cli {

// Requests of random tokens, greedy and past end-of-sequence.
struct BenchLoad {
  int prompt_tokens = 512;
  int output_tokens = 128;
  int concurrency = 1;
  int requests = 3;
  uint64_t seed = 1;
};

// Sends them in waves of `concurrency`, a thread each, after one request that is not counted: the
// only sample is that one if it fails.
std::vector<BenchSample> RunBenchLoad(Connection* connection, uint32_t vocab_size,
                                      const BenchLoad& load);

}  // namespace gatefold::cli
