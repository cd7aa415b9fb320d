#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <string>
#include <thread>
#include <vector>

#include "absl/strings/str_cat.h"
#include "gatefold/base/errors.h"
#include "gatefold/metrics/attention_metrics.h"
#include "gatefold/metrics/build_info.h"
#include "gatefold/metrics/dispatch_metrics.h"
#include "gatefold/metrics/expert_metrics.h"
#include "gatefold/metrics/request_metrics.h"
#include "gatefold/metrics/rpc_metrics.h"
#include "gatefold/metrics/step_metrics.h"
#include "gatefold/metrics/tls_metrics.h"

namespace gatefold {
namespace {

using ::testing::HasSubstr;
using ::testing::Not;

TEST(RequestMetricsTest, CountsFinishedRequestsAndTheirTimes) {
  Registry registry;
  RequestMetrics metrics(&registry);
  metrics.ObserveFirstToken(absl::Milliseconds(3));
  metrics.ObserveNextToken(absl::Milliseconds(3));
  metrics.ObserveEnd({.status = absl::OkStatus(),
                      .n_prompt_tokens = 7,
                      .n_output_tokens = 20,
                      .n_truncated_tokens = 3,
                      .mixed_numerics = true,
                      .queue = absl::Milliseconds(2),
                      .end_to_end = absl::Milliseconds(200)});
  const std::string text = registry.Text();
  EXPECT_THAT(text, HasSubstr("gatefold_requests_total{outcome=\"ok\"} 1\n"));
  EXPECT_THAT(text, HasSubstr("gatefold_request_ttft_seconds_bucket{le=\"0.001\"} 0\n"));
  EXPECT_THAT(text, HasSubstr("gatefold_request_ttft_seconds_bucket{le=\"0.005\"} 1\n"));
  EXPECT_THAT(text, HasSubstr("gatefold_request_itl_seconds_bucket{le=\"0.002\"} 0\n"));
  EXPECT_THAT(text, HasSubstr("gatefold_request_itl_seconds_bucket{le=\"0.005\"} 1\n"));
  EXPECT_THAT(text, HasSubstr("gatefold_request_prompt_tokens_sum 7\n"));
  EXPECT_THAT(text, HasSubstr("gatefold_request_generation_tokens_sum 20\n"));
  EXPECT_THAT(text, HasSubstr("gatefold_request_truncated_tokens_total 3\n"));
  EXPECT_THAT(text, HasSubstr("gatefold_requests_mixed_numerics_total 1\n"));
  EXPECT_THAT(text, HasSubstr("gatefold_request_e2e_seconds_sum 0.2"));
  EXPECT_THAT(text, HasSubstr("gatefold_request_queue_seconds_sum 0.002"));
}

TEST(RequestMetricsTest, TellsItsLatenciesByBucket) {
  Registry registry;
  RequestMetrics metrics(&registry);
  for (const double seconds : {0.001, 0.003, 0.003, 1000.0}) {
    metrics.ObserveNextToken(absl::Seconds(seconds));
  }
  const RequestMetrics::Latencies itl = metrics.NextTokens();
  ASSERT_EQ(itl.counts.size(), itl.upper_bounds.size() + 1);
  EXPECT_EQ(itl.upper_bounds[0], 0.002);
  EXPECT_EQ(itl.counts[0], 1);
  EXPECT_EQ(itl.counts[1], 2);
  EXPECT_EQ(itl.counts[2], 0);
  EXPECT_EQ(itl.counts.back(), 1);
  EXPECT_NEAR(itl.sum, 1000.007, 1e-9);
}

TEST(RequestMetricsTest, KeepsRefusedRequestsOutOfTheTimes) {
  Registry registry;
  RequestMetrics metrics(&registry);
  metrics.ObserveEnd(
      {.status = absl::ResourceExhaustedError("full"), .end_to_end = absl::Microseconds(5)});
  const std::string text = registry.Text();
  EXPECT_THAT(text, HasSubstr("gatefold_requests_total{outcome=\"resource_exhausted\"} 1\n"));
  EXPECT_THAT(text, HasSubstr("gatefold_request_e2e_seconds_count 0\n"));
}

TEST(RequestMetricsTest, TellsTheCallersLimitsFromTheClusters) {
  Registry registry;
  RequestMetrics metrics(&registry);
  metrics.ObserveEnd({.status = RateLimited("tokens", 100, absl::Seconds(9))});
  const std::string text = registry.Text();
  EXPECT_THAT(text, HasSubstr("gatefold_requests_total{outcome=\"rate_limited\"} 1\n"));
  EXPECT_THAT(text, HasSubstr("gatefold_requests_total{outcome=\"resource_exhausted\"} 0\n"));
}

TEST(RegistryTest, ReadsGaugesAtEveryScrape) {
  Registry registry;
  RequestMetrics metrics(&registry);
  double running = 3;
  metrics.WatchRunning([&] { return running; });
  EXPECT_THAT(registry.Text(), HasSubstr("gatefold_requests_running 3\n"));
  running = 4;
  EXPECT_THAT(registry.Text(), HasSubstr("gatefold_requests_running 4\n"));
}

TEST(RegistryTest, ReadsNothingAfterWatchingStops) {
  Registry registry;
  int n_reads = 0;
  AttentionMetrics metrics(&registry);
  metrics.WatchSequences([&] { return ++n_reads; });
  registry.Text();
  registry.StopWatching();
  EXPECT_THAT(registry.Text(), Not(HasSubstr("gatefold_sequences ")));
  EXPECT_EQ(n_reads, 1);
}

TEST(RegistryDeathTest, RefusesNamesLabelsAndKindsThatAreNotInTheTable) {
  Registry registry;
  EXPECT_DEATH(registry.AddCounter("gatefold_unknown_total"), "broken invariant");
  EXPECT_DEATH(registry.AddCounter("gatefold_requests_total", {{"result", "ok"}}),
               "broken invariant");
  EXPECT_DEATH(registry.AddCounter("gatefold_step_rows"), "broken invariant");
}

TEST(StepMetricsTest, KeepsPhasesApart) {
  Registry registry;
  StepMetrics metrics(&registry);
  metrics.Observe("gate", absl::Microseconds(20));
  metrics.Observe("experts", absl::Milliseconds(2));
  metrics.Observe("experts", absl::Milliseconds(2));
  metrics.ObserveRows(33);
  metrics.ObserveFailed();
  metrics.ObserveRecomputed("moved");
  const std::string text = registry.Text();
  EXPECT_THAT(text, HasSubstr("gatefold_step_seconds_count{phase=\"gate\"} 1\n"));
  EXPECT_THAT(text, HasSubstr("gatefold_step_seconds_count{phase=\"experts\"} 2\n"));
  EXPECT_THAT(text, HasSubstr("gatefold_step_rows_bucket{le=\"32\"} 0\n"));
  EXPECT_THAT(text, HasSubstr("gatefold_step_rows_bucket{le=\"64\"} 1\n"));
  EXPECT_THAT(text, HasSubstr("gatefold_steps_failed_total 1\n"));
  EXPECT_THAT(text, HasSubstr("gatefold_sequences_recomputed_total{reason=\"moved\"} 1\n"));
  EXPECT_THAT(text, HasSubstr("gatefold_sequences_recomputed_total{reason=\"preempted\"} 0\n"));
}

TEST(DispatchMetricsTest, ShowsTrafficAndHowEvenItIs) {
  Registry registry;
  DispatchMetrics metrics(&registry);
  metrics.WatchQueue([] { return 7; });
  metrics.WatchRetries("busy", [] { return 2; });
  metrics.WatchCoverage([] { return 0.5; });
  metrics.WatchPlacementEpoch([] { return 11; });
  metrics.WatchShards([] { return DispatchMetrics::ShardRows{{"a", 30}, {"b", 10}}; });
  metrics.WatchImbalance([] { return 1.5; });
  const std::string text = registry.Text();
  EXPECT_THAT(text, HasSubstr("gatefold_router_expert_queue_tokens 7\n"));
  EXPECT_THAT(text, HasSubstr("# TYPE gatefold_router_retries_total counter\n"
                              "gatefold_router_retries_total{reason=\"busy\"} 2\n"));
  EXPECT_THAT(text, HasSubstr("gatefold_router_coverage_ratio 0.5\n"));
  EXPECT_THAT(text, HasSubstr("gatefold_router_placement_epoch 11\n"));
  EXPECT_THAT(text, HasSubstr("gatefold_router_shard_rows_total{shard=\"b\"} 10\n"));
  EXPECT_THAT(text, HasSubstr("gatefold_router_imbalance_ratio 1.5\n"));
}

TEST(DispatchMetricsTest, ShowsWhatWasSentTwice) {
  Registry registry;
  DispatchMetrics metrics(&registry);
  metrics.WatchHedges(true, [] { return 3; });
  metrics.WatchHedges(false, [] { return 1; });
  metrics.WatchVerified("different", [] { return 2; });
  metrics.WatchDegraded([] { return 5; });
  const auto rows = [] { return DispatchMetrics::ShardRows{{"a", 30}}; };
  metrics.WatchTraffic({rows, rows, rows, rows});
  const std::string text = registry.Text();
  EXPECT_THAT(text, HasSubstr("gatefold_router_hedges_total{won=\"true\"} 3\n"));
  EXPECT_THAT(text, HasSubstr("gatefold_router_hedges_total{won=\"false\"} 1\n"));
  EXPECT_THAT(text, HasSubstr("gatefold_router_verified_rows_total{result=\"different\"} 2\n"));
  EXPECT_THAT(text, HasSubstr("gatefold_router_degraded_rows_total 5\n"));
  for (const char* what : {"rows_sent", "calls", "sent_bytes", "received_bytes"}) {
    EXPECT_THAT(
        text, HasSubstr(absl::StrCat("gatefold_router_shard_", what, "_total{shard=\"a\"} 30\n")));
  }
}

TEST(DispatchMetricsTest, ShowsHopsByPeer) {
  Registry registry;
  DispatchMetrics metrics(&registry);
  metrics.WatchHops([] { return std::vector<DispatchMetrics::PeerHops>{{"a", 3, 0.5, 100, 200}}; });
  const std::string text = registry.Text();
  EXPECT_THAT(text, HasSubstr("gatefold_router_hops_total{peer=\"a\"} 3\n"));
  EXPECT_THAT(text, HasSubstr("gatefold_router_hop_seconds_total{peer=\"a\"} 0.5\n"));
  EXPECT_THAT(text, HasSubstr("hop_bytes_total{direction=\"sent\",peer=\"a\"} 100\n"));
  EXPECT_THAT(text, HasSubstr("hop_bytes_total{direction=\"received\",peer=\"a\"} 200\n"));
}

TEST(ExpertMetricsTest, CountsWorkByLayerAndCallsInFlight) {
  Registry registry;
  ExpertMetrics metrics(&registry, 2, 1);
  metrics.ObserveCallStarted();
  metrics.ObserveCallStarted();
  metrics.ObserveCallStarted();
  metrics.ObserveCallDone(1, 6, absl::Microseconds(20), absl::Milliseconds(500));
  metrics.ObserveCallRefused();
  metrics.SetLoadTime(absl::Seconds(3));
  metrics.WatchLoadedBytes([] { return 1024; });
  const std::string text = registry.Text();
  EXPECT_THAT(text, HasSubstr("gatefold_expert_tokens_total{layer=\"0\"} 0\n"));
  EXPECT_THAT(text, HasSubstr("gatefold_expert_tokens_total{layer=\"1\"} 6\n"));
  EXPECT_THAT(text, HasSubstr("gatefold_expert_compute_seconds_total 0.5\n"));
  EXPECT_THAT(text, HasSubstr("gatefold_expert_queue_seconds_bucket{le=\"1e-05\"} 0\n"));
  EXPECT_THAT(text, HasSubstr("gatefold_expert_inflight 1\n"));
  EXPECT_THAT(text, HasSubstr("gatefold_expert_lanes 1\n"));
  EXPECT_THAT(text, HasSubstr("gatefold_expert_load_seconds 3\n"));
  EXPECT_THAT(text, HasSubstr("gatefold_expert_loaded_bytes 1024\n"));
}

TEST(ExpertMetricsTest, CountsByExpertOnRequestAlone) {
  Registry registry;
  ExpertMetrics metrics(&registry, 2, 1);
  EXPECT_THAT(registry.Text(), Not(HasSubstr("gatefold_expert_rows_total")));
  std::vector<ExpertMetrics::ExpertRows> rows = {{0, 3, 5}, {1, 12, 7}};
  metrics.WatchExperts([&rows] { return rows; });
  std::string text = registry.Text();
  EXPECT_THAT(text, HasSubstr("gatefold_expert_rows_total{expert=\"3\",layer=\"0\"} 5\n"));
  EXPECT_THAT(text, HasSubstr("gatefold_expert_rows_total{expert=\"12\",layer=\"1\"} 7\n"));
  rows.pop_back();  // given away
  text = registry.Text();
  EXPECT_THAT(text, Not(HasSubstr("expert=\"12\"")));
  registry.StopWatching();
  EXPECT_THAT(registry.Text(), Not(HasSubstr("gatefold_expert_rows_total{")));
}

TEST(AttentionMetricsTest, DerivesKvUsageFromFreeBlocks) {
  Registry registry;
  AttentionMetrics metrics(&registry);
  metrics.WatchKvBlocks(
      8, [] { return 5; }, [] { return 1; });
  metrics.ObserveLookUp(48, 7);
  metrics.ObserveCall(4, absl::Microseconds(20), absl::Milliseconds(250));
  const std::string text = registry.Text();
  EXPECT_THAT(text, HasSubstr("gatefold_kv_blocks{state=\"free\"} 5\n"));
  EXPECT_THAT(text, HasSubstr("gatefold_kv_blocks{state=\"cached\"} 1\n"));
  EXPECT_THAT(text, HasSubstr("gatefold_prefix_cache_tokens_total{result=\"hit\"} 48\n"));
  EXPECT_THAT(text, HasSubstr("gatefold_prefix_cache_tokens_total{result=\"miss\"} 7\n"));
  EXPECT_THAT(text, HasSubstr("gatefold_kv_blocks{state=\"used\"} 2\n"));
  EXPECT_THAT(text, HasSubstr("gatefold_kv_usage_ratio 0.25\n"));
  EXPECT_THAT(text, HasSubstr("gatefold_attention_tokens_total 4\n"));
  EXPECT_THAT(text, HasSubstr("gatefold_attention_compute_seconds_total 0.25\n"));
}

TEST(RpcMetricsTest, NamesMethodsWithoutSlashAndStatusInCapitals) {
  Registry registry;
  RpcMetrics metrics(&registry);
  metrics.ObserveServerCall("/a.B/C", absl::StatusCode::kUnavailable, absl::Microseconds(30));
  metrics.ObserveClientAttempt("/a.B/C", absl::StatusCode::kOk, absl::Microseconds(30));
  const std::string text = registry.Text();
  EXPECT_THAT(text, HasSubstr("grpc_server_call_duration_seconds_count{grpc_method=\"a.B/C\","
                              "grpc_status=\"UNAVAILABLE\"} 1\n"));
  EXPECT_THAT(text, HasSubstr("grpc_client_attempt_duration_seconds_bucket{grpc_method=\"a.B/C\","
                              "grpc_status=\"OK\",le=\"5e-05\"} 1\n"));
}

TEST(BuildInfoTest, SaysWhatRuns) {
  Registry registry;
  AddBuildInfo(&registry, "1.2.3", "cpu", "avx2");
  EXPECT_THAT(registry.Text(), HasSubstr("gatefold_build_info{backend=\"cpu\",isa=\"avx2\","
                                         "version=\"1.2.3\"} 1\n"));
}

TEST(MetricsTest, ShowsWhenACertificateExpiresIfThereIsOne) {
  Registry registry;
  WatchCertificate(&registry, "workers", [] { return absl::InfiniteFuture(); });
  absl::Time not_after = absl::FromUnixSeconds(1000);
  WatchCertificate(&registry, "listen", [&] { return not_after; });
  not_after = absl::FromUnixSeconds(2000);  // it was renewed
  EXPECT_THAT(registry.Text(),
              HasSubstr("gatefold_tls_certificate_expiry_seconds{use=\"listen\"} 2000\n"));
  EXPECT_THAT(registry.Text(), Not(HasSubstr("workers\"}")));
}

TEST(MetricsTest, ManyThreadsLoseNothing) {
  Registry registry;
  StepMetrics steps(&registry);
  RequestMetrics requests(&registry);
  std::vector<std::thread> threads;
  for (int t = 0; t < 4; ++t) {
    threads.emplace_back([&] {
      for (int i = 0; i < 500; ++i) {
        steps.Observe("fold", absl::Microseconds(20));
        requests.ObserveEnd({.status = absl::OkStatus()});
        if (i % 100 == 0) registry.Text();
      }
    });
  }
  for (std::thread& thread : threads) thread.join();
  const std::string text = registry.Text();
  EXPECT_THAT(text, HasSubstr("gatefold_step_seconds_count{phase=\"fold\"} 2000\n"));
  EXPECT_THAT(text, HasSubstr("gatefold_requests_total{outcome=\"ok\"} 2000\n"));
}

}  // namespace
}  // namespace gatefold
