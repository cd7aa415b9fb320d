#include "router-service/planner/cluster_planner.h"

#include <limits>

#include "absl/time/clock.h"
#include "gtest/gtest.h"
#include "router-service/dispatch/fake_shard.h"

namespace gatefold {
namespace {

constexpr int kLayers = 2;

class ClusterPlannerTest : public testing::Test {
 protected:
  void Start(const std::vector<FakeShard*>& shards) {
    Directory::Options options;
    for (FakeShard* shard : shards) options.expert_addresses.push_back(shard->address());
    ClusterIdentity identity;
    identity.n_layers = kLayers;
    identity.experts_per_layer = 4;
    directory_ = *Directory::Start(options, identity);
    const auto all_ready = [](const RoutingTable& table) {
      for (const WorkerEntry& entry : table.experts) {
        if (entry.state != WorkerEntry::State::kReady) return false;
      }
      return true;
    };
    ASSERT_TRUE(directory_->Await(all_ready, absl::Now() + absl::Seconds(20)));
    planner_ = *ClusterPlanner::Start({}, {kLayers, 4, 100}, directory_.get());
  }
  static void Describe(FakeShard* shard, uint64_t epoch) {
    shard->SetDescription([epoch](internal::v1::ExpertShard* shard) {
      shard->set_assignable(true);
      shard->set_epoch(epoch);
    });
  }

  std::unique_ptr<Directory> directory_;
  std::unique_ptr<ClusterPlanner> planner_;
};

TEST_F(ClusterPlannerTest, GoesOnWhereAnotherPlannerEnded) {
  FakeShard one("planner-one", {}, kLayers), two("planner-two", {}, kLayers);
  Describe(&one, 7);
  Describe(&two, 0);
  Start({&one, &two});
  EXPECT_EQ(one.AwaitAssigned().front().epoch(), 8);
  EXPECT_EQ(two.AwaitAssigned().front().epoch(), 1);
}

// The highest epoch there is, told to the others, would be the last that they ever took.
TEST_F(ClusterPlannerTest, AShardThatTellsAWrongEpochHarmsNoOther) {
  FakeShard wrong("planner-wrong", {}, kLayers), right("planner-right", {}, kLayers);
  Describe(&wrong, std::numeric_limits<uint64_t>::max() - 1);
  Describe(&right, 1);
  Start({&wrong, &right});
  EXPECT_EQ(right.AwaitAssigned().front().epoch(), 2);
}

}  // namespace
}  // namespace gatefold
