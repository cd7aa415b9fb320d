#include "cli/bench_report.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <cmath>

namespace gatefold::cli {
namespace {

using testing::ElementsAre;

// A request of `n_prompt_tokens` sent at `sent`, with a token at each of the times.
BenchSample Request(int wave, int n_prompt_tokens, double sent, std::vector<double> arrivals) {
  BenchSample sample;
  sample.wave = wave;
  sample.n_prompt_tokens = n_prompt_tokens;
  sample.sent = sent;
  for (const double arrival : arrivals) sample.NoteTokens(1, arrival);
  return sample;
}

TEST(PercentileTest, InterpolatesBetweenRanks) {
  const std::vector<double> values = {4, 1, 3, 2, 5};
  EXPECT_EQ(Percentile(values, 50), 3);
  EXPECT_EQ(Percentile(values, 100), 5);
  EXPECT_DOUBLE_EQ(Percentile(values, 99), 4.96);
  EXPECT_EQ(Percentile(std::vector<double>{7}, 99), 7);
}

TEST(PercentileTest, HasNoneOfNothing) { EXPECT_TRUE(std::isnan(Percentile({}, 50))); }

TEST(BenchSampleTest, SharesTimeAmongTokensThatComeTogether) {
  BenchSample sample;
  sample.NoteTokens(2, 1.0);
  sample.NoteTokens(0, 2.0);
  sample.NoteTokens(4, 3.0);
  EXPECT_THAT(sample.gaps, ElementsAre(0, 0.5, 0.5, 0.5, 0.5));
  EXPECT_EQ(sample.arrivals.size(), 6u);
}

TEST(BenchReportTest, AddsUpRequestsThatComeOneAfterAnother) {
  const BenchReport report =
      MakeBenchReport({Request(0, 100, 10, {12, 13, 14}), Request(1, 100, 20, {22, 24, 26})});
  EXPECT_DOUBLE_EQ(report.prefill_tokens_per_second, 50);  // 200 in 2 + 2 s
  EXPECT_DOUBLE_EQ(report.decode_tokens_per_second, 4.0 / 6);
  EXPECT_DOUBLE_EQ(report.ttft_ms.p50, 2000);
  EXPECT_DOUBLE_EQ(report.itl_ms.p50, 1500);
}

TEST(BenchReportTest, KeepsThePhasesOfAWaveApart) {
  // The token at 2 came while the other request was in prefill.
  const BenchReport report =
      MakeBenchReport({Request(0, 10, 0, {1, 2, 5, 6}), Request(0, 10, 0, {4, 5, 6})});
  EXPECT_DOUBLE_EQ(report.prefill_tokens_per_second, 5);
  EXPECT_DOUBLE_EQ(report.decode_tokens_per_second, 2);  // 4 tokens in 2 s
}

TEST(BenchReportTest, CountsFailuresApart) {
  BenchSample failed = Request(1, 100, 0, {});
  failed.status = absl::UnavailableError("gone");
  const BenchReport report = MakeBenchReport({Request(0, 10, 0, {1, 2}), failed});
  EXPECT_EQ(report.n_failed, 1);
  EXPECT_EQ(report.n_requests, 2);
  EXPECT_DOUBLE_EQ(report.prefill_tokens_per_second, 10);
}

TEST(BenchReportTest, WritesNullForWhatWasNotMeasured) {
  const Json json = BenchJson(MakeBenchReport({Request(0, 10, 0, {1})}));
  EXPECT_EQ(json["prefill_tokens_per_second"], 10.0);
  EXPECT_EQ(json.dump().find("\"decode_tokens_per_second\":null") == std::string::npos, false);
}

}  // namespace
}  // namespace gatefold::cli
