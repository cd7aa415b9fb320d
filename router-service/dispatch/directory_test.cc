#include "router-service/dispatch/directory.h"

#include <algorithm>
#include <memory>
#include <set>
#include <string>
#include <utility>

#include "absl/strings/match.h"
#include "absl/synchronization/mutex.h"
#include "absl/time/clock.h"
#include "gatefold/rpc/traffic.h"
#include "gtest/gtest.h"
#include "router-service/dispatch/fake_shard.h"

namespace gatefold {
namespace {

// Nobody is asked twice: what the directory learns later, it is told.
class DirectoryTest : public testing::Test {
 protected:
  void Connect() {
    Directory::Options options;
    options.expert_addresses = {shard_.address()};
    options.interval = absl::Hours(1);
    options.starting_interval = absl::Hours(1);
    ClusterIdentity identity;
    identity.n_layers = 2;
    identity.experts_per_layer = 4;
    directory_ = *Directory::Start(options, identity);
    ASSERT_TRUE(AwaitHolders(0, 1));
  }
  bool AwaitHolders(int expert, size_t n) {
    return directory_->Await(
        [=](const RoutingTable& table) { return table.HoldersOf(1, expert).size() == n; },
        absl::Now() + absl::Seconds(20));
  }

  FakeShard shard_{"directory-test", {0, 1}, 2};
  std::unique_ptr<Directory> directory_;
};

TEST_F(DirectoryTest, HearsOfExpertsThatComeAndGo) {
  Connect();
  EXPECT_TRUE(directory_->Table()->HoldersOf(1, 2).empty());
  shard_.SetExperts({0, 2});
  EXPECT_TRUE(AwaitHolders(2, 1));
  EXPECT_TRUE(directory_->Table()->HoldersOf(1, 1).empty());
}

TEST_F(DirectoryTest, NoticesAtOnceThatAShardIsGoneAndRemembersWhatItHeld) {
  Connect();
  shard_.SetExperts({0, 1});  // it is watched
  shard_.Die();
  EXPECT_TRUE(AwaitHolders(0, 0));
  const auto table = directory_->Table();
  EXPECT_EQ(table->experts[0].state, WorkerEntry::State::kUnreachable);
  EXPECT_EQ(table->LastHolderOf(1, 0), 0);
  EXPECT_EQ(table->LastHolderOf(1, 3), -1);
}

TEST_F(DirectoryTest, KnowsWhatAShardHasComputedAndCallsItNoChange) {
  shard_.SetDescription([](internal::v1::ExpertShard* shard) {
    shard->set_n_rows_computed(5);
    shard->set_busy_nanos(3'000'000'000);
  });
  Connect();
  const Directory::ShardWork work = directory_->WorkOfShard(0);
  EXPECT_EQ(work.incarnation, directory_->Table()->experts[0].worker.incarnation());
  EXPECT_EQ(work.n_rows, 5u);
  EXPECT_EQ(work.busy, absl::Seconds(3));
  const uint64_t version = directory_->Table()->version;
  shard_.SetDescription([](internal::v1::ExpertShard* shard) { shard->set_n_rows_computed(6); });
  shard_.SetExperts({0, 1});
  const auto n_rows = [&] { return directory_->WorkOfShard(0).n_rows; };
  // The table wakes nobody for it.
  for (int i = 0; i < 20'000 && n_rows() != 6; ++i) {
    directory_->Await([](const RoutingTable&) { return false; },
                      absl::Now() + absl::Milliseconds(1));
  }
  EXPECT_EQ(n_rows(), 6u);
  EXPECT_EQ(directory_->Table()->version, version);
}

// Pods come and go at new addresses: those that ended are not shown for ever.
TEST(DirectoryDiscoveryTest, TellsAShardThatEndedFromOneThatIsAway) {
  FakeShard shard("directory-gone", {0}, 2);
  ClusterIdentity identity;
  identity.n_layers = 2;
  identity.experts_per_layer = 2;
  const auto directory = *Directory::Start(Directory::Options(), identity);
  const auto await = [&](WorkerEntry::State state, bool gone) {
    return directory->Await(
        [=](const RoutingTable& table) {
          return table.experts.size() == 1 && table.experts[0].state == state &&
                 table.experts[0].gone == gone;
        },
        absl::Now() + absl::Seconds(20));
  };
  directory->SetDiscovered({shard.address()}, {});
  EXPECT_TRUE(await(WorkerEntry::State::kReady, false));
  shard.Die();
  EXPECT_TRUE(await(WorkerEntry::State::kUnreachable, false));
  directory->SetDiscovered({}, {});
  EXPECT_TRUE(await(WorkerEntry::State::kUnreachable, true));
}

// A step of the version makes planners plan and watchers of the topology hear.
TEST(DirectoryVersionTest, StandsStillWhileAnAttentionServiceFillsUp) {
  using Request = internal::v1::AttentionServiceDescribeRequest;
  using Response = internal::v1::AttentionServiceDescribeResponse;
  std::atomic<uint32_t> n_free = 8;
  ServerOptions server_options;
  server_options.addresses = {
      absl::StrCat("unix-abstract:gatefold-", getpid(), "-directory-version")};
  RpcServer server(server_options);
  AddUnary<Request, Response>(
      &server, "gatefold.internal.v1.AttentionService", "Describe",
      [&](std::shared_ptr<CallContext>, const Request&, Respond<Response> respond) {
        Response response;
        response.mutable_worker()->set_wire_version(kWireVersion);
        response.set_n_kv_blocks(8);
        response.set_n_kv_blocks_free(n_free);
        respond(response);
      });
  ASSERT_TRUE(server.Start().ok());
  Directory::Options options;
  options.attention_addresses = {server.address()};
  options.interval = options.starting_interval = absl::Milliseconds(10);
  const auto directory = *Directory::Start(options, ClusterIdentity());
  const auto await_free = [&](uint32_t wanted) {
    return directory->Await(
        [=](const RoutingTable& table) {
          return table.attention[0].attention.n_kv_blocks_free() == wanted;
        },
        absl::Now() + absl::Seconds(20));
  };
  ASSERT_TRUE(await_free(8));
  const uint64_t version = directory->Table()->version;
  n_free = 3;
  EXPECT_TRUE(await_free(3));
  EXPECT_EQ(directory->Table()->version, version);
  server.Shutdown(absl::ZeroDuration());
  EXPECT_TRUE(directory->Await(
      [](const RoutingTable& table) {
        return table.attention[0].state == WorkerEntry::State::kUnreachable;
      },
      absl::Now() + absl::Seconds(20)));
  EXPECT_GT(directory->Table()->version, version);
}

TEST(DirectoryHostileTest, BelievesNoShardMoreThanTheModelHas) {
  FakeShard shard("directory-ranges", {0}, 2);
  shard.SetDescription([](internal::v1::ExpertShard* shard) {
    for (int i = 0; i < 4; ++i) *shard->add_held() = shard->held(0);
  });
  Directory::Options options;
  options.expert_addresses = {shard.address()};
  ClusterIdentity identity;
  identity.n_layers = 2;
  identity.experts_per_layer = 2;
  const auto directory = *Directory::Start(options, identity);
  EXPECT_TRUE(directory->Await(
      [](const RoutingTable& table) {
        return table.experts[0].state == WorkerEntry::State::kMismatch;
      },
      absl::Now() + absl::Seconds(20)));
  const auto table = directory->Table();
  EXPECT_EQ(table->experts[0].detail,
            "size of held is 6, must be at most 4, the experts of the model");
  EXPECT_TRUE(table->HoldersOf(0, 0).empty());
}

TEST(DirectoryHostileTest, ShowsNamesThatTerminalsTakeForNothingElse) {
  FakeShard shard("directory-names", {0}, 2);
  shard.SetDescription([](internal::v1::ExpertShard* shard) {
    shard->mutable_worker()->set_name("a\x1b[2J\n");
    shard->mutable_worker()->set_node(std::string(100'000, 'n'));
  });
  Directory::Options options;
  options.expert_addresses = {shard.address()};
  ClusterIdentity identity;
  identity.n_layers = 2;
  identity.experts_per_layer = 2;
  const auto directory = *Directory::Start(options, identity);
  EXPECT_TRUE(
      directory->Await([](const RoutingTable& table) { return !table.HoldersOf(0, 0).empty(); },
                       absl::Now() + absl::Seconds(20)));
  const auto table = directory->Table();
  EXPECT_EQ(table->experts[0].name(), "a?[2J?");
  EXPECT_EQ(table->experts[0].worker.node().size(), 256);
}

TEST(DirectoryMetricsTest, CountsItsQuestionsByHowTheyWereAnswered) {
  FakeShard shard("directory-attempts", {0}, 2);
  Directory::Options options;
  options.expert_addresses = {shard.address(), "unix:/nowhere/gatefold.sock"};
  options.channels.traffic = std::make_shared<TrafficTable>();
  absl::Mutex mu;
  std::set<std::pair<std::string, absl::StatusCode>> seen;
  options.channels.traffic->ObserveAttempts(
      [&](absl::string_view method, absl::StatusCode code, absl::Duration) {
        absl::MutexLock lock(&mu);
        seen.emplace(method, code);
      });
  ClusterIdentity identity;
  identity.n_layers = identity.experts_per_layer = 2;
  const auto directory = *Directory::Start(options, identity);
  const std::string method = "/gatefold.internal.v1.ExpertService/Describe";
  const auto both = [&]() ABSL_EXCLUSIVE_LOCKS_REQUIRED(mu) {
    return seen.contains({method, absl::StatusCode::kOk}) &&
           seen.contains({method, absl::StatusCode::kUnavailable});
  };
  {
    absl::MutexLock lock(&mu);
    EXPECT_TRUE(mu.AwaitWithTimeout(absl::Condition(&both), absl::Seconds(20)));
  }
  options.channels.traffic->ObserveAttempts(nullptr);
}

// A pod with an address of each family, say.
class DirectoryTwinTest : public testing::Test {
 protected:
  DirectoryTwinTest() {
    for (FakeShard* address : {&a_, &b_}) Describe(address, /*incarnation=*/77);
    Directory::Options options;
    options.expert_addresses = {a_.address(), b_.address()};
    options.interval = absl::Milliseconds(10);
    ClusterIdentity identity;
    identity.n_layers = identity.experts_per_layer = 2;
    directory_ = *Directory::Start(options, identity);
  }
  static void Describe(FakeShard* shard, uint64_t incarnation) {
    shard->SetDescription([=](internal::v1::ExpertShard* shard) {
      shard->mutable_worker()->set_incarnation(incarnation);
    });
  }
  // Shards that are used for expert 0, once that is so many and none is left to be asked.
  std::vector<int> AwaitHolders(size_t n) {
    EXPECT_TRUE(directory_->Await(
        [=](const RoutingTable& table) {
          return table.HoldersOf(0, 0).size() == n && !table.experts[0].detail.ends_with("yet") &&
                 !table.experts[1].detail.ends_with("yet");
        },
        absl::Now() + absl::Seconds(20)));
    return directory_->Table()->HoldersOf(0, 0);
  }

  FakeShard a_{"twin-a", {0}, 2}, b_{"twin-b", {0}, 2};
  std::unique_ptr<Directory> directory_;
};

TEST_F(DirectoryTwinTest, UsesAProcessAtOneOfItsAddresses) {
  const int used = AwaitHolders(1)[0];
  const auto table = directory_->Table();
  const WorkerEntry& other = table->experts[1 - used];
  EXPECT_EQ(other.state, WorkerEntry::State::kMismatch);
  EXPECT_EQ(other.detail, absl::StrCat("the same process as ", table->experts[used].address));
  EXPECT_TRUE(other.twin);
  EXPECT_EQ(table->CoverageRatio(), 0.5);
  // And goes on with it, however often both are asked.
  for (FakeShard* address : {&a_, &b_}) {
    address->SetDescription([](internal::v1::ExpertShard* shard) {
      shard->mutable_worker()->set_incarnation(77);
      shard->mutable_worker()->set_node("another");
    });
  }
  EXPECT_TRUE(directory_->Await(
      [](const RoutingTable& table) {
        return table.experts[0].worker.node() == "another" &&
               table.experts[1].worker.node() == "another";
      },
      absl::Now() + absl::Seconds(20)));
  EXPECT_EQ(directory_->Table()->HoldersOf(0, 0), std::vector<int>{used});
}

TEST_F(DirectoryTwinTest, GoesToTheOtherAddressWhenOneBreaks) {
  const int used = AwaitHolders(1)[0];
  (used == 0 ? a_ : b_).Die();
  EXPECT_TRUE(directory_->Await(
      [=](const RoutingTable& table) {
        return table.HoldersOf(0, 0) == std::vector<int>{1 - used};
      },
      absl::Now() + absl::Seconds(20)));
}

TEST_F(DirectoryTwinTest, UsesBothOnceTheyAreProcessesOfTheirOwn) {
  AwaitHolders(1);
  Describe(&b_, 78);
  EXPECT_EQ(AwaitHolders(2).size(), 2u);
  // One that does not say which process it is is taken for one of its own.
  Describe(&a_, 0);
  Describe(&b_, 0);
  EXPECT_TRUE(directory_->Await(
      [](const RoutingTable& table) {
        return table.experts[0].worker.incarnation() + table.experts[1].worker.incarnation() == 0;
      },
      absl::Now() + absl::Seconds(20)));
  EXPECT_EQ(AwaitHolders(2).size(), 2u);
}

// Whatever is first; the other is not used, and its experts have no holder.
TEST(DirectoryNumericsTest, UsesOneClassUnlessToldOtherwise) {
  FakeShard one("numerics-1", {0}, 2, /*numerics_class=*/1);
  FakeShard other("numerics-2", {1}, 2, /*numerics_class=*/2);
  for (const bool allowed : {false, true}) {
    Directory::Options options;
    options.expert_addresses = {one.address(), other.address()};
    ClusterIdentity identity;
    identity.n_layers = 2;
    identity.experts_per_layer = 2;
    identity.allow_mixed_numerics = allowed;
    const auto directory = *Directory::Start(options, identity);
    const auto n_in = [](const RoutingTable& table, WorkerEntry::State state) {
      return std::count_if(table.experts.begin(), table.experts.end(),
                           [=](const WorkerEntry& entry) { return entry.state == state; });
    };
    EXPECT_TRUE(directory->Await(
        [&](const RoutingTable& table) {
          return n_in(table, WorkerEntry::State::kReady) == (allowed ? 2 : 1) &&
                 n_in(table, WorkerEntry::State::kMismatch) == (allowed ? 0 : 1);
        },
        absl::Now() + absl::Seconds(20)));
    EXPECT_EQ(directory->Table()->CoverageRatio(), allowed ? 1 : 0.5);
    for (const WorkerEntry& entry : directory->Table()->experts) {
      EXPECT_EQ(absl::StrContains(entry.detail, "in another numerics class than \"of "),
                entry.state == WorkerEntry::State::kMismatch)
          << entry.detail;
    }
  }
}

}  // namespace
}  // namespace gatefold
