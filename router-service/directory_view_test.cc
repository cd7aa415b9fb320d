#include "router-service/directory_view.h"

#include "absl/time/clock.h"
#include "gtest/gtest.h"
#include "router-service/dispatch/fake_shard.h"

namespace gatefold {
namespace {

// Pods come and go at new addresses: one that ended is not shown for ever, one that is away is.
TEST(DirectoryViewTest, ShowsWhoIsAwayAndNotWhoIsGone) {
  FakeShard shard("directory-view", {0}, 2);
  ClusterIdentity identity;
  identity.n_layers = 2;
  identity.experts_per_layer = 2;
  const auto directory = *Directory::Start(Directory::Options(), identity);
  const DispatchCounters counters(kMaxWorkers, 4);
  ModelConfig config;
  config.n_layers = 2;
  const DirectoryView view("model", "fingerprint", config, directory.get(), &counters);
  const auto await = [&](bool reached, bool gone) {
    return directory->Await(
        [=](const RoutingTable& table) {
          return table.experts.size() == 1 && table.experts[0].gone == gone &&
                 (table.experts[0].state == WorkerEntry::State::kUnreachable) != reached;
        },
        absl::Now() + absl::Seconds(20));
  };
  directory->SetDiscovered({shard.address()}, {});
  ASSERT_TRUE(await(true, false));
  shard.Die();
  ASSERT_TRUE(await(false, false));
  ASSERT_EQ(view.Snapshot().workers_size(), 1);
  EXPECT_EQ(view.Snapshot().workers(0).state(), cluster::v1::WORKER_STATE_UNREACHABLE);
  directory->SetDiscovered({}, {});
  ASSERT_TRUE(await(false, true));
  EXPECT_EQ(view.Snapshot().workers_size(), 0);
}

// One that drains computes what nobody else holds, and one that holds nothing computes nothing.
TEST(DirectoryViewTest, NumericsAreMixedWhereThoseWhoHoldExpertsDiffer) {
  FakeShard first("directory-view-1", {0, 1}, 2, 1), other("directory-view-2", {1}, 2, 2);
  ClusterIdentity identity;
  identity.n_layers = 2;
  identity.experts_per_layer = 2;
  identity.allow_mixed_numerics = true;
  const auto directory = *Directory::Start(Directory::Options(), identity);
  const DispatchCounters counters(kMaxWorkers, 4);
  ModelConfig config;
  config.n_layers = 2;
  const DirectoryView view("model", "fingerprint", config, directory.get(), &counters);
  const auto await = [&](size_t n_holders, int last_holder) {
    return directory->Await(
        [=](const RoutingTable& table) {
          const std::vector<int>& holders = table.HoldersOf(0, 1);
          return holders.size() == n_holders && (holders.empty() || holders.back() == last_holder);
        },
        absl::Now() + absl::Seconds(20));
  };
  directory->SetDiscovered({first.address(), other.address()}, {});
  ASSERT_TRUE(await(2, 1));
  EXPECT_TRUE(view.mixed_numerics());
  other.SetExperts({});
  ASSERT_TRUE(await(1, 0));
  EXPECT_FALSE(view.mixed_numerics());
  other.SetDescription(
      [](internal::v1::ExpertShard* shard) { shard->mutable_worker()->set_draining(true); });
  other.SetExperts({1});
  first.SetExperts({0});
  ASSERT_TRUE(await(1, 1));
  EXPECT_TRUE(view.mixed_numerics());
}

}  // namespace
}  // namespace gatefold
