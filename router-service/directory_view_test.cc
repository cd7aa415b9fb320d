#include "router-service/directory_view.h"

#include <algorithm>
#include <memory>
#include <optional>
#include <vector>

#include "absl/time/clock.h"
#include "gtest/gtest.h"
#include "router-service/dispatch/fake_shard.h"

namespace gatefold {
namespace {

// A directory of two layers with two experts each, and the view of it.
class Watched {
 public:
  explicit Watched(bool allow_mixed_numerics) {
    config_.n_layers = 2;
    ClusterIdentity identity;
    identity.n_layers = 2;
    identity.experts_per_layer = 2;
    identity.allow_mixed_numerics = allow_mixed_numerics;
    directory_ = *Directory::Start(Directory::Options(), identity);
    view_.emplace("model", "fingerprint", config_, directory_.get(), &counters_);
  }

  Directory* directory() { return directory_.get(); }
  const DirectoryView& view() const { return *view_; }

 private:
  ModelConfig config_;
  const DispatchCounters counters_{kMaxWorkers, 4};
  std::unique_ptr<Directory> directory_;
  std::optional<DirectoryView> view_;
};

// Pods come and go at new addresses: one that ended is not shown for ever, one that is away is.
TEST(DirectoryViewTest, ShowsWhoIsAwayAndNotWhoIsGone) {
  FakeShard shard("directory-view", {0}, 2);
  Watched watched(/*allow_mixed_numerics=*/false);
  Directory* const directory = watched.directory();
  const DirectoryView& view = watched.view();
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
  Watched watched(/*allow_mixed_numerics=*/true);
  Directory* const directory = watched.directory();
  const DirectoryView& view = watched.view();
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

// Each of them may be stopped once it has none, so two that drain may not rely on each other.
TEST(DirectoryViewTest, WhatOnlyDrainingShardsHoldIsSoleToEachOfThem) {
  FakeShard first("directory-view-3", {0, 1}, 2), second("directory-view-4", {1}, 2),
      third("directory-view-5", {}, 2);
  Watched watched(/*allow_mixed_numerics=*/false);
  Directory* const directory = watched.directory();
  const DirectoryView& view = watched.view();
  const auto await = [&](size_t n_draining, size_t n_holders) {
    return directory->Await(
        [=](const RoutingTable& table) {
          return table.HoldersOf(1, 1).size() == n_holders &&
                 std::count_if(table.experts.begin(), table.experts.end(),
                               [](const WorkerEntry& entry) {
                                 return entry.state == WorkerEntry::State::kDraining;
                               }) == static_cast<ptrdiff_t>(n_draining);
        },
        absl::Now() + absl::Seconds(20));
  };
  const auto sole = [&view] {
    std::vector<uint32_t> counts;
    const cluster::v1::GetClusterResponse cluster = view.Snapshot();
    for (const auto& worker : cluster.workers()) counts.push_back(worker.n_sole_experts());
    return counts;
  };
  const auto drain = [](internal::v1::ExpertShard* shard) {
    shard->mutable_worker()->set_draining(true);
  };
  directory->SetDiscovered({first.address(), second.address(), third.address()}, {});
  ASSERT_TRUE(await(0, 2));
  EXPECT_EQ(sole(), (std::vector<uint32_t>{2, 0, 0}));  // expert 0, in two layers
  second.SetDescription(drain);
  ASSERT_TRUE(await(1, 1));
  EXPECT_EQ(sole(), (std::vector<uint32_t>{4, 0, 0}));
  first.SetDescription(drain);
  ASSERT_TRUE(await(2, 2));
  EXPECT_EQ(sole(), (std::vector<uint32_t>{4, 2, 0}));
  third.SetExperts({0, 1});
  ASSERT_TRUE(await(2, 1));
  EXPECT_EQ(sole(), (std::vector<uint32_t>{0, 0, 4}));
}

}  // namespace
}  // namespace gatefold
