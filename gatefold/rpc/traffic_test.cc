#include "gatefold/rpc/traffic.h"

#include <vector>

#include "gmock/gmock.h"
#include "gtest/gtest.h"

namespace gatefold {
namespace {

using ::testing::ElementsAre;

std::vector<std::string> Names(const TrafficTable& table) {
  std::vector<std::string> names;
  for (const auto& [address, traffic] : table.All()) names.push_back(address);
  return names;
}

TEST(TrafficTableTest, AddsUpAllStreamsToAPeer) {
  TrafficTable table;
  const auto lane_0 = table.Of("b:1"), lane_1 = table.Of("b:1"), other = table.Of("a:1");
  EXPECT_EQ(lane_0, lane_1);
  EXPECT_NE(lane_0, other);
  EXPECT_THAT(Names(table), ElementsAre("a:1", "b:1"));
}

TEST(TrafficTableTest, ForgetsPeersThatNobodyIsConnectedTo) {
  TrafficTable table;
  const auto kept = table.Of("a:1");
  { const auto gone = table.Of("b:1"); }
  EXPECT_THAT(Names(table), ElementsAre("a:1"));
  EXPECT_EQ(table.Of("b:1")->n_answers, 0u);
}

TEST(TrafficTableTest, TellsOneObserverOfAttempts) {
  TrafficTable table;
  int n = 0;
  table.OnAttempt("/m", absl::StatusCode::kOk, absl::Seconds(1));
  table.ObserveAttempts([&n](absl::string_view, absl::StatusCode, absl::Duration) { ++n; });
  table.OnAttempt("/m", absl::StatusCode::kOk, absl::Seconds(1));
  table.ObserveAttempts(nullptr);
  table.OnAttempt("/m", absl::StatusCode::kOk, absl::Seconds(1));
  EXPECT_EQ(n, 1);
}

}  // namespace
}  // namespace gatefold
