#include "router-service/dispatch/shard_balance.h"

#include "gtest/gtest.h"

namespace gatefold {
namespace {

class ShardBalanceTest : public testing::Test {
 protected:
  // Rows that each shard serves every second.
  void Serve(int seconds, const std::vector<uint64_t>& rows) {
    for (int s = 0; s < seconds; ++s) {
      for (size_t i = 0; i < rows.size(); ++i) shards_[i].n_rows += rows[i];
      now_ += absl::Seconds(1);
      if (balance_.Due(now_)) balance_.Note(now_, shards_);
    }
  }
  double Ratio() { return balance_.Ratio(now_, shards_); }

  std::vector<ShardBalance::Shard> shards_ = {{"a", true}, {"b", true}};
  absl::Time now_ = absl::UnixEpoch();
  ShardBalance balance_;
};

TEST_F(ShardBalanceTest, AnIdleClusterIsEven) {
  EXPECT_EQ(Ratio(), 1);
  Serve(100, {0, 0});
  EXPECT_EQ(Ratio(), 1);
}

TEST_F(ShardBalanceTest, ComparesTheBusiestWithTheMean) {
  Serve(100, {30, 10});
  EXPECT_NEAR(Ratio(), 1.5, 1e-9);
}

TEST_F(ShardBalanceTest, ForgetsWhatWasMoreThanAMinuteAgo) {
  Serve(100, {30, 10});
  Serve(70, {10, 10});
  EXPECT_NEAR(Ratio(), 1, 1e-9);
  Serve(70, {0, 0});
  EXPECT_EQ(Ratio(), 1);
}

TEST_F(ShardBalanceTest, ShowsTheSameHoweverOftenSomebodyLooks) {
  Serve(100, {30, 10});
  for (int i = 0; i < 30; ++i) {
    Serve(1, {10, 10});
    EXPECT_GT(Ratio(), 1.2);
  }
}

// Nobody may have looked in between.
TEST_F(ShardBalanceTest, LooksBackAMinuteWhereItIsReadSeldom) {
  for (int i = 0; i < 10; ++i) {
    Serve(300, {30, 10});
    Serve(70, {10, 10});
    EXPECT_NEAR(Ratio(), 1, 1e-9);
  }
}

// A pod that is replaced leaves its counts behind, and the new one begins without any.
TEST_F(ShardBalanceTest, LeavesOutThoseThatAreGoneOrHoldNothing) {
  shards_.push_back({"empty", false});
  Serve(97, {10, 10, 0});  // the last sample is a second ago
  EXPECT_NEAR(Ratio(), 1, 1e-9);
  shards_[1].holds_experts = false;
  Serve(3, {10, 0, 0});
  EXPECT_NEAR(Ratio(), 1, 1e-9);
  shards_[2].holds_experts = true;
  Serve(20, {10, 0, 10});
  EXPECT_NEAR(Ratio(), 1, 1e-9);
  // The index of one that is gone is another's, whose count goes on.
  shards_[1] = {"d", true, shards_[1].n_rows};
  EXPECT_NEAR(Ratio(), 1, 1e-9);
  Serve(17, {10, 10, 10});  // the last sample is a second ago
  EXPECT_NEAR(Ratio(), 1, 1e-9);
  shards_[1] = {"e", true, shards_[1].n_rows};
  Serve(3, {10, 0, 10});
  EXPECT_NEAR(Ratio(), 1, 1e-9);
  Serve(10, {10, 70, 10});
  EXPECT_GT(Ratio(), 1.5);
}

TEST_F(ShardBalanceTest, CountsAShardFromWhenItHoldsExperts) {
  shards_[1].holds_experts = false;
  Serve(100, {10, 0});
  shards_[1].holds_experts = true;
  Serve(3, {10, 10});
  EXPECT_NEAR(Ratio(), 1, 1e-9);
  Serve(20, {10, 10});
  EXPECT_NEAR(Ratio(), 1, 1e-9);
}

TEST(ShardsOfTest, TellsThoseThatHoldExperts) {
  RoutingTable table;
  for (const auto state :
       {WorkerEntry::State::kReady, WorkerEntry::State::kDraining, WorkerEntry::State::kMismatch,
        WorkerEntry::State::kUnreachable, WorkerEntry::State::kReady}) {
    WorkerEntry& entry = table.experts.emplace_back();
    entry.address = WorkerStateName(state);
    entry.state = state;
    entry.shard.add_held();
  }
  table.experts.back().shard.clear_held();
  const DispatchCounters counters(kMaxWorkers, 1);
  std::vector<bool> holds;
  for (const ShardBalance::Shard& shard : ShardsOf(table, counters.rows_served)) {
    holds.push_back(shard.holds_experts);
  }
  EXPECT_EQ(holds, (std::vector<bool>{true, true, false, false, false}));
}

}  // namespace
}  // namespace gatefold
