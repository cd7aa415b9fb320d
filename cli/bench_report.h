#pragma once

#include <vector>

#include "absl/status/status.h"
#include "absl/types/span.h"
#include "cli/output.h"

namespace gatefold::cli {

// What one request of a benchmark showed. Times are seconds of one clock.
struct BenchSample {
  absl::Status status;
  int wave = 0;  // requests of one wave are sent together, and the next one after all have ended
  int n_prompt_tokens = 0;
  double sent = 0;
  std::vector<double> arrivals;  // of every output token, ascending
  std::vector<double> gaps;      // before every output token but the first

  // Tokens that come together share the time since those before; those that come along with the
  // first one took no time of their own.
  void NoteTokens(int n_tokens, double now);
};

struct Percentiles {
  double p50 = 0;
  double p99 = 0;
};

// By linear interpolation between the closest ranks; NaN of nothing.
double Percentile(absl::Span<const double> values, double percent);

struct BenchReport {
  double prefill_tokens_per_second = 0;  // rates are NaN where there was no token
  double decode_tokens_per_second = 0;
  Percentiles ttft_ms;
  Percentiles itl_ms;
  int n_requests = 0;
  int n_failed = 0;
};

// A wave is in prefill from the first sending until every request has its first token, and in
// decode from then to the last token; a rate is the tokens of all waves in a phase over its time.
// Tokens that a request produces while others of its wave are in prefill count for neither rate.
BenchReport MakeBenchReport(const std::vector<BenchSample>& samples);

// {"prefill_tokens_per_second", "decode_tokens_per_second", "ttft_ms": {"p50", "p99"},
// "itl_ms": {...}, "requests_failed"}; what could not be measured is null.
Json BenchJson(const BenchReport& report);
void PrintBenchReport(const BenchReport& report, std::ostream& out);

}  // namespace gatefold::cli
