#include "router-service/dispatch/routing_table.h"

#include "gmock/gmock.h"
#include "gtest/gtest.h"

namespace gatefold {
namespace {

using testing::ElementsAre;
using testing::IsEmpty;

constexpr int kLayers = 2, kExperts = 4;

class RoutingTableTest : public testing::Test {
 protected:
  RoutingTableTest() { table_.experts_per_layer = kExperts; }

  void AddShard(WorkerEntry::State state, uint32_t layer, uint32_t first, uint32_t n) {
    WorkerEntry& entry = table_.experts.emplace_back();
    entry.state = state;
    internal::v1::ExpertRange* range = entry.shard.add_held();
    range->set_layer(layer);
    range->set_first_expert(first);
    range->set_n_experts(n);
  }

  RoutingTable table_;
};

TEST_F(RoutingTableTest, DrainingShardsHoldWhatNoOtherHolds) {
  AddShard(WorkerEntry::State::kDraining, 0, 0, 2);
  AddShard(WorkerEntry::State::kReady, 0, 1, 2);
  AddShard(WorkerEntry::State::kDraining, 0, 0, 1);
  table_.FindHolders(kLayers);
  EXPECT_THAT(table_.HoldersOf(0, 0), ElementsAre(0, 2));
  EXPECT_THAT(table_.HoldersOf(0, 1), ElementsAre(1));
  EXPECT_EQ(table_.CoverageRatio(), 3.0 / 8);
}

TEST_F(RoutingTableTest, RemembersWhoHeldWhatNobodyHolds) {
  AddShard(WorkerEntry::State::kReady, 1, 3, 1);
  table_.FindHolders(kLayers);
  EXPECT_THAT(table_.HoldersOf(1, 3), ElementsAre(0));
  table_.experts[0].state = WorkerEntry::State::kUnreachable;
  table_.FindHolders(kLayers);
  EXPECT_THAT(table_.HoldersOf(1, 3), IsEmpty());
  EXPECT_EQ(table_.LastHolderOf(1, 3), 0);
  EXPECT_EQ(table_.LastHolderOf(1, 2), -1);
}

TEST_F(RoutingTableTest, TakesNothingThatTheModelDoesNotHave) {
  AddShard(WorkerEntry::State::kReady, kLayers, 0, kExperts);
  AddShard(WorkerEntry::State::kReady, 0, kExperts, 1);
  AddShard(WorkerEntry::State::kReady, 1, 3, ~0u);
  table_.FindHolders(kLayers);
  EXPECT_THAT(table_.HoldersOf(1, 3), ElementsAre(2));
  EXPECT_EQ(table_.CoverageRatio(), 1.0 / 8);
}

// It would be a replica of itself.
TEST_F(RoutingTableTest, CountsAShardOnceHoweverOftenItNamesAnExpert) {
  AddShard(WorkerEntry::State::kReady, 0, 0, 2);
  AddShard(WorkerEntry::State::kReady, 0, 1, 1);
  internal::v1::ExpertShard* const first = &table_.experts[0].shard;
  const internal::v1::ExpertRange again = first->held(0);
  *first->add_held() = again;
  table_.FindHolders(kLayers);
  EXPECT_THAT(table_.HoldersOf(0, 0), ElementsAre(0));
  EXPECT_THAT(table_.HoldersOf(0, 1), ElementsAre(0, 1));
}

TEST_F(RoutingTableTest, NamesTheExpertsThatNobodyServes) {
  RoutingTable table;
  table.experts_per_layer = 4;
  table.holders.resize(8);
  EXPECT_EQ(table.Uncovered(), "0:0-3,1:0-3");
  for (const int item : {0, 2, 3, 4, 7}) table.holders[item] = {0};
  EXPECT_EQ(table.Uncovered(), "0:1,1:1-2");
  for (auto& holders : table.holders) holders = {0};
  EXPECT_EQ(table.Uncovered(), "");
  table.experts_per_layer = 1;
  table.holders.assign(20, {});
  EXPECT_THAT(table.Uncovered(), testing::EndsWith(",15:0 and 4 ranges more"));
}

TEST_F(RoutingTableTest, SaysWhetherHoldersAreOfDifferentNumerics) {
  AddShard(WorkerEntry::State::kReady, 0, 0, 1);
  AddShard(WorkerEntry::State::kReady, 1, 0, 1);
  table_.experts[0].worker.set_numerics_class(1);
  table_.experts[1].worker.set_numerics_class(1);
  table_.FindHolders(kLayers);
  EXPECT_FALSE(table_.mixed_numerics);
  table_.experts[1].worker.set_numerics_class(2);
  table_.FindHolders(kLayers);
  EXPECT_TRUE(table_.mixed_numerics);
  table_.experts[1].state = WorkerEntry::State::kUnreachable;
  table_.FindHolders(kLayers);
  EXPECT_FALSE(table_.mixed_numerics);
}

}  // namespace
}  // namespace gatefold
