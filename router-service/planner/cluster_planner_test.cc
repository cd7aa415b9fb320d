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

  static uint32_t CountAssigned(const internal::v1::AssignRequest& request) {
    uint32_t n = 0;
    for (const internal::v1::ExpertRange& range : request.experts()) n += range.n_experts();
    return n;
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

// Two are at work while one ends and the next one starts. What the other told a shard must not be
// taken for what this one did: experts that it dropped would never be loaded again.
TEST_F(ClusterPlannerTest, TellsAShardAgainThatAnotherPlannerToldOtherwise) {
  FakeShard shard("planner-of-two", {}, kLayers);
  Describe(&shard, 0);
  Start({&shard});
  const internal::v1::AssignRequest first = shard.AwaitAssigned(1).front();
  EXPECT_EQ(CountAssigned(first), 8);
  Describe(&shard, first.epoch() + 1);  // and it holds nothing
  const internal::v1::AssignRequest again = shard.AwaitAssigned(2).back();
  EXPECT_EQ(again.epoch(), first.epoch() + 2);
  EXPECT_EQ(CountAssigned(again), 8);
}

// The highest epoch there is, told to the others, would be the last that they ever took.
TEST_F(ClusterPlannerTest, AShardThatTellsAWrongEpochHarmsNoOther) {
  FakeShard wrong("planner-wrong", {}, kLayers), right("planner-right", {}, kLayers);
  Describe(&wrong, std::numeric_limits<uint64_t>::max() - 1);
  Describe(&right, 1);
  Start({&wrong, &right});
  EXPECT_EQ(right.AwaitAssigned().front().epoch(), 2);
}

// A GPU's pod has few threads, and would wait for CPUs that have many.
TEST_F(ClusterPlannerTest, FillsShardsByTheSpeedThatTheyShow) {
  FakeShard cpu("planner-cpu", {}, kLayers), gpu("planner-gpu", {}, kLayers);
  const auto describe = [](FakeShard* shard, const char* backend, int threads, uint64_t rows) {
    shard->SetDescription([=](internal::v1::ExpertShard* shard) {
      shard->set_assignable(true);
      shard->mutable_worker()->set_backend(backend);
      shard->mutable_worker()->set_n_threads(threads);
      shard->set_n_rows_computed(rows);
      shard->set_busy_nanos(10'000'000'000);
    });
  };
  describe(&cpu, "cpu", 16, 10'000);
  describe(&gpu, "cuda", 4, 70'000);
  Start({&cpu, &gpu});
  EXPECT_EQ(CountAssigned(cpu.AwaitAssigned().front()), 1);
  EXPECT_EQ(CountAssigned(gpu.AwaitAssigned().front()), 7);
}

}  // namespace
}  // namespace gatefold
