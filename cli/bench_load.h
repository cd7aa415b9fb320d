#pragma once

#include <cstdint>
#include <optional>
#include <vector>

#include "absl/status/statusor.h"
#include "cli/bench_report.h"
#include "cli/connection.h"

namespace gatefold::cli {

// How long requests are.
struct LoadSize {
  int prompt_tokens = 0;
  int output_tokens = 0;
};

// What was asked for; where nothing was, the usual size, or less if a model of `limit` tokens has
// no room for it. Errors: a usage error that names flags and limits.
absl::StatusOr<LoadSize> FitLoad(const LoadSize& usual, std::optional<int> prompt_tokens,
                                 std::optional<int> output_tokens, uint32_t limit);

// Requests of random tokens, greedy and past end-of-sequence.
struct BenchLoad {
  LoadSize size;
  int concurrency = 1;
  int requests = 3;
  uint64_t seed = 1;
};

// Sends them in waves of `concurrency`, a thread each, after one request that is not counted: the
// only sample is that one if it fails. No wave is sent after an interrupt; the last sample says so.
std::vector<BenchSample> RunBenchLoad(Connection* connection, uint32_t vocab_size,
                                      const BenchLoad& load);

}  // namespace gatefold::cli
