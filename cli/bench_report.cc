#include "cli/bench_report.h"

#include <algorithm>
#include <cmath>
#include <limits>
#include <map>

#include "absl/strings/str_format.h"

namespace gatefold::cli {
namespace {

constexpr double kNotMeasured = std::numeric_limits<double>::quiet_NaN();

Percentiles PercentilesOf(const std::vector<double>& seconds) {
  return {1e3 * Percentile(seconds, 50), 1e3 * Percentile(seconds, 99)};
}

double Rate(int n_tokens, double seconds) {
  return n_tokens > 0 && seconds > 0 ? n_tokens / seconds : kNotMeasured;
}

struct Wave {
  double begin = std::numeric_limits<double>::infinity();
  double prefilled = -std::numeric_limits<double>::infinity();  // all have their first token
  double end = -std::numeric_limits<double>::infinity();
};

std::map<int, Wave> FindWaves(const std::vector<BenchSample>& samples) {
  std::map<int, Wave> waves;
  for (const BenchSample& sample : samples) {
    Wave& wave = waves[sample.wave];
    wave.begin = std::min(wave.begin, sample.sent);
    wave.prefilled = std::max(wave.prefilled, sample.arrivals.front());
    wave.end = std::max(wave.end, sample.arrivals.back());
  }
  return waves;
}

Json ToJson(const Percentiles& percentiles) {
  return {{"p50", percentiles.p50}, {"p99", percentiles.p99}};
}

std::string Shown(const char* unit, double value) {
  return std::isnan(value) ? "-" : absl::StrFormat("%.2f %s", value, unit);
}

}  // namespace

double Percentile(absl::Span<const double> values, double percent) {
  if (values.empty()) return kNotMeasured;
  std::vector<double> sorted(values.begin(), values.end());
  std::sort(sorted.begin(), sorted.end());
  const double rank = percent / 100 * static_cast<double>(sorted.size() - 1);
  const size_t below = static_cast<size_t>(rank);
  const size_t above = std::min(below + 1, sorted.size() - 1);
  return sorted[below] + (rank - static_cast<double>(below)) * (sorted[above] - sorted[below]);
}

void BenchSample::NoteTokens(int n_tokens, double now) {
  if (n_tokens <= 0) return;
  const auto n = static_cast<size_t>(n_tokens);
  if (arrivals.empty()) {
    gaps.assign(n - 1, 0);
  } else {
    gaps.insert(gaps.end(), n, (now - arrivals.back()) / n_tokens);
  }
  arrivals.insert(arrivals.end(), n, now);
}

BenchReport MakeBenchReport(const std::vector<BenchSample>& samples) {
  BenchReport report;
  std::vector<BenchSample> good;
  std::vector<double> ttfts, gaps;
  for (const BenchSample& sample : samples) {
    ++report.n_requests;
    if (!sample.status.ok() || sample.arrivals.empty()) {
      ++report.n_failed;
      continue;
    }
    ttfts.push_back(sample.arrivals.front() - sample.sent);
    gaps.insert(gaps.end(), sample.gaps.begin(), sample.gaps.end());
    good.push_back(sample);
  }
  const std::map<int, Wave> waves = FindWaves(good);
  double prefill_seconds = 0, decode_seconds = 0;
  for (const auto& [index, wave] : waves) {
    prefill_seconds += wave.prefilled - wave.begin;
    decode_seconds += wave.end - wave.prefilled;
  }
  int n_prompt_tokens = 0, n_decoded_tokens = 0;
  for (const BenchSample& sample : good) {
    n_prompt_tokens += sample.n_prompt_tokens;
    n_decoded_tokens += static_cast<int>(
        sample.arrivals.end() - std::upper_bound(sample.arrivals.begin(), sample.arrivals.end(),
                                                 waves.at(sample.wave).prefilled));
  }
  report.prefill_tokens_per_second = Rate(n_prompt_tokens, prefill_seconds);
  report.decode_tokens_per_second = Rate(n_decoded_tokens, decode_seconds);
  report.ttft_ms = PercentilesOf(ttfts);
  report.itl_ms = PercentilesOf(gaps);
  return report;
}

Json BenchJson(const BenchReport& report) {
  return {{"prefill_tokens_per_second", report.prefill_tokens_per_second},
          {"decode_tokens_per_second", report.decode_tokens_per_second},
          {"ttft_ms", ToJson(report.ttft_ms)},
          {"itl_ms", ToJson(report.itl_ms)},
          {"requests_failed", report.n_failed}};
}

void PrintBenchReport(const BenchReport& report, std::ostream& out) {
  Table table({"", ">p50", ">p99"});
  table.AddRow(
      {"time to first token", Shown("ms", report.ttft_ms.p50), Shown("ms", report.ttft_ms.p99)});
  table.AddRow({"between tokens", Shown("ms", report.itl_ms.p50), Shown("ms", report.itl_ms.p99)});
  out << "prefill  " << Shown("tokens/s", report.prefill_tokens_per_second) << "\ndecode   "
      << Shown("tokens/s", report.decode_tokens_per_second) << "\n\n";
  table.Print(out);
  out << "\n"
      << report.n_requests - report.n_failed << " of " << report.n_requests
      << " requests succeeded\n";
}

}  // namespace gatefold::cli
