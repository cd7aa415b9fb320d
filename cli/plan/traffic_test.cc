#include "cli/plan/traffic.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>
#include <numeric>

namespace gatefold::cli {
namespace {

// Expert e of every layer on shard e % n_shards.
Plan RoundRobin(int n_layers, int n_experts, int n_shards) {
  Plan plan;
  plan.experts.resize(n_shards);
  for (uint32_t item = 0; item < static_cast<uint32_t>(n_layers * n_experts); ++item) {
    plan.experts[item % n_experts % n_shards].push_back(item);
  }
  return plan;
}

LayerTraffic Draw(int n_layers, int n_experts, int n_shards, const TrafficOptions& options) {
  return DrawTraffic(RoundRobin(n_layers, n_experts, n_shards), n_layers, n_experts,
                     ExpertPopularity(n_layers, n_experts, options), options);
}

TEST(TrafficTest, OneShardGetsEveryRowOnce) {
  TrafficOptions options;
  options.n_rows = 10;
  options.top_k = 3;
  const LayerTraffic traffic = Draw(4, 8, 1, options);
  EXPECT_EQ(traffic.n_messages, 1);
  EXPECT_EQ(traffic.n_rows_sent, 10);
  EXPECT_EQ(traffic.n_rows_answered, 30);
  EXPECT_EQ(traffic.most_rows, 30);
  EXPECT_EQ(traffic.imbalance, 1);
}

TEST(TrafficTest, ADenseLayerVisitsAll) {
  TrafficOptions options;
  options.n_rows = 5;
  options.top_k = 8;
  const LayerTraffic traffic = Draw(2, 8, 4, options);
  EXPECT_EQ(traffic.n_messages, 4);
  EXPECT_EQ(traffic.n_rows_sent, 20);
  EXPECT_EQ(traffic.n_rows_answered, 40);
  EXPECT_EQ(traffic.most_experts, 2);
}

// With an even gate a row misses a shard of e experts with chance C(E - e, K) / C(E, K).
TEST(TrafficTest, AgreesWithTheFormulaOfAnEvenGate) {
  TrafficOptions options;
  options.n_rows = 16;
  options.top_k = 2;
  options.n_steps = 400;
  const LayerTraffic traffic = Draw(10, 16, 4, options);
  const double misses = (12.0 * 11) / (16 * 15);
  EXPECT_NEAR(traffic.n_rows_sent, 16 * 4 * (1 - misses), 0.1);
  EXPECT_NEAR(traffic.n_messages, 4 * (1 - std::pow(misses, 16)), 0.01);
  options.n_rows = 1;
  EXPECT_NEAR(Draw(10, 16, 4, options).n_messages, 4 * (1 - misses), 0.03);
}

TEST(TrafficTest, ReplicasTakeTurns) {
  Plan plan = RoundRobin(1, 2, 2);
  plan.experts.push_back({0, 1});  // copies of both
  TrafficOptions options;
  options.n_rows = 1;
  options.top_k = 2;
  options.n_steps = 2;
  const LayerTraffic traffic = DrawTraffic(plan, 1, 2, ExpertPopularity(1, 2, options), options);
  // Step 0: expert 0 at shard 0, expert 1 at its second place, shard 2; step 1 the other way round.
  EXPECT_EQ(traffic.n_messages, 2);
  EXPECT_EQ(traffic.most_rows, 1);
}

TEST(TrafficTest, SkewMakesSomeExpertsBusier) {
  TrafficOptions options;
  options.top_k = 2;
  const double even = Draw(8, 32, 8, options).imbalance;
  options.skew = 1;
  EXPECT_GT(Draw(8, 32, 8, options).imbalance, even * 1.2);
  const std::vector<double> popularity = ExpertPopularity(2, 4, options);
  EXPECT_NEAR(std::accumulate(popularity.begin(), popularity.begin() + 4, 0.0), 1, 1e-12);
}

// Rates 1, 1/2, 1/3: the last expert is left out of two of three with chance
// (6/11)(3/5) + (3/11)(3/4), whether they are drawn one by one or race.
TEST(TrafficTest, DrawsWithoutReplacementInProportionToPopularity) {
  TrafficOptions options;
  options.skew = 1;
  options.n_rows = 1;
  options.top_k = 2;
  options.n_steps = 40000;
  const std::vector<double> popularity = ExpertPopularity(1, 3, options);
  const double least = *std::min_element(popularity.begin(), popularity.end());
  Plan plan;
  plan.experts.resize(2);  // the least popular one on a shard of its own
  for (uint32_t item = 0; item < 3; ++item) plan.experts[popularity[item] == least].push_back(item);
  const double left_out = 6.0 / 11 * 3 / 5 + 3.0 / 11 * 3 / 4;
  EXPECT_NEAR(DrawTraffic(plan, 1, 3, popularity, options).n_messages, 2 - left_out, 0.01);
}

TEST(TrafficTest, IsTheSameEveryTime) {
  TrafficOptions options;
  options.skew = 0.5;
  EXPECT_EQ(Draw(3, 16, 4, options).n_rows_sent, Draw(3, 16, 4, options).n_rows_sent);
}

}  // namespace
}  // namespace gatefold::cli
