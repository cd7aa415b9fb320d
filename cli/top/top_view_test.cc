#include "cli/top/top_view.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <sstream>

namespace gatefold::cli {
namespace {

using cluster::v1::LatencyHistogram;
using testing::HasSubstr;

// Bounds 1, 2 and 4 seconds.
LatencyHistogram Histogram(const std::vector<uint64_t>& counts) {
  LatencyHistogram histogram;
  for (const double bound : {1, 2, 4}) histogram.add_upper_bounds_seconds(bound);
  histogram.mutable_counts()->Assign(counts.begin(), counts.end());
  return histogram;
}

cluster::v1::Worker* AddShard(TopSample* sample, const std::string& name, uint64_t rows) {
  cluster::v1::Worker* worker = sample->cluster.add_workers();
  worker->set_name(name);
  worker->set_address(name);
  worker->set_kind(cluster::v1::WORKER_KIND_EXPERT);
  worker->set_state(cluster::v1::WORKER_STATE_READY);
  worker->set_n_experts(4);
  worker->set_rows_served(rows);
  return worker;
}

TEST(QuantileTest, SpreadsABucketEvenly) {
  const LatencyHistogram none = Histogram({0, 0, 0, 0});
  EXPECT_EQ(QuantileBetween(none, none, 0.5), std::nullopt);
  EXPECT_EQ(QuantileBetween(none, Histogram({0, 10, 0, 0}), 0.5), 1.5);
  EXPECT_EQ(QuantileBetween(none, Histogram({5, 0, 5, 0}), 0.75), 3);
  EXPECT_EQ(QuantileBetween(none, Histogram({0, 0, 0, 1}), 0.99), 4);  // at least
  // Only what came in between counts.
  EXPECT_EQ(QuantileBetween(Histogram({100, 0, 0, 0}), Histogram({100, 10, 0, 0}), 0.5), 1.5);
  // A router that was started again.
  EXPECT_EQ(QuantileBetween(Histogram({100, 0, 0, 0}), Histogram({0, 10, 0, 0}), 0.5), 1.5);
  EXPECT_EQ(QuantileBetween(none, LatencyHistogram(), 0.5), std::nullopt);
}

TEST(TopViewTest, TellsRatesBetweenTwoSamples) {
  TopSample before, after;
  before.at = absl::UnixEpoch();
  after.at = before.at + absl::Seconds(2);
  *before.stats.mutable_ttft() = Histogram({1, 0, 0, 0});
  *after.stats.mutable_ttft() = Histogram({5, 0, 0, 0});
  *before.stats.mutable_itl() = Histogram({10, 0, 0, 0});
  *after.stats.mutable_itl() = Histogram({26, 0, 0, 0});
  AddShard(&before, "a", 100);
  AddShard(&before, "b", 50);
  AddShard(&after, "a", 400);
  AddShard(&after, "b", 150);
  // These take no part in the mean.
  AddShard(&after, "empty", 0)->set_n_experts(0);
  AddShard(&after, "b under another address", 0)->set_state(cluster::v1::WORKER_STATE_MISMATCH);
  const TopView view = CompareSamples(before, after);
  EXPECT_EQ(view.tokens_per_second, 10);
  EXPECT_EQ(view.workers[0].rows_per_second, 150);
  EXPECT_EQ(view.workers[1].rows_per_second, 50);
  EXPECT_EQ(view.workers[0].share, 0.75);
  EXPECT_EQ(view.imbalance, 1.5);
  EXPECT_EQ(view.itl_p50, 0.5);
}

TEST(TopViewTest, AnIdleClusterIsEven) {
  TopSample sample;
  AddShard(&sample, "a", 100);
  const TopView view = CompareSamples(sample, sample);
  EXPECT_EQ(view.imbalance, 1);
  EXPECT_EQ(view.tokens_per_second, 0);
  std::ostringstream table, line;
  PrintTopTable(view, table);
  EXPECT_THAT(table.str(), HasSubstr("TTFT p50 - ms"));
  PrintTopLine(view, line);
  EXPECT_THAT(line.str(), HasSubstr("imbalance=1.00 busy{a}=0.00"));
  EXPECT_EQ(TopJson(view)["itl_ms"]["p50"], Json());
}

TEST(TopViewTest, ARouterThatHoldsAllExpertsItselfIsEven) {
  TopSample before, after;
  AddShard(&before, "local", 0)->set_kind(cluster::v1::WORKER_KIND_ROUTER);
  AddShard(&after, "local", 100)->set_kind(cluster::v1::WORKER_KIND_ROUTER);
  EXPECT_EQ(CompareSamples(before, after).imbalance, 1);
}

TEST(TopViewTest, SaysHowManyWaitForAnExpert) {
  TopSample sample;
  sample.stats.set_n_running(3);
  std::ostringstream quiet, table, line;
  PrintTopTable(CompareSamples(sample, sample), quiet);
  EXPECT_THAT(quiet.str(), HasSubstr("running 3   waiting 0"));
  sample.stats.set_n_waiting_for_expert(2);
  const TopView view = CompareSamples(sample, sample);
  PrintTopTable(view, table);
  EXPECT_THAT(table.str(), HasSubstr("running 3 (2 wait for an expert)   waiting 0"));
  PrintTopLine(view, line);
  EXPECT_THAT(line.str(), HasSubstr("waiting_for_expert=2"));
  EXPECT_EQ(TopJson(view)["requests_waiting_for_expert"], 2);
}

TEST(TopViewTest, AddsUpTheKvCache) {
  TopSample sample;
  for (const uint32_t n_free : {50, 100}) {
    cluster::v1::Worker* worker = sample.cluster.add_workers();
    worker->set_kind(cluster::v1::WORKER_KIND_ATTENTION);
    worker->set_n_kv_blocks(100);
    worker->set_n_kv_blocks_free(n_free);
  }
  EXPECT_EQ(TopJson(CompareSamples(sample, sample))["kv_usage_ratio"], 0.25);
}

}  // namespace
}  // namespace gatefold::cli
