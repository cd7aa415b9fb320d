#include "router-service/cluster_control.h"

#include "absl/synchronization/notification.h"
#include "absl/time/clock.h"
#include "gtest/gtest.h"
#include "router-service/dispatch/fake_shard.h"

namespace gatefold {
namespace {

TEST(ClusterControlTest, ANameIsEnoughForAProcessThatHasTwoAddresses) {
  FakeShard a("control-a", {0}, 2), b("control-b", {0}, 2);
  for (FakeShard* shard : {&a, &b}) {
    shard->SetDescription([](internal::v1::ExpertShard* shard) {
      shard->mutable_worker()->set_name("expert-0");
      shard->mutable_worker()->set_incarnation(77);
    });
  }
  Directory::Options options;
  options.expert_addresses = {a.address(), b.address()};
  ClusterIdentity identity;
  identity.n_layers = identity.experts_per_layer = 2;
  const auto directory = *Directory::Start(options, identity);
  ASSERT_TRUE(directory->Await(
      [](const RoutingTable& table) { return table.experts[0].twin || table.experts[1].twin; },
      absl::Now() + absl::Seconds(20)));
  const DispatchCounters counters(kMaxWorkers, 4);
  const DirectoryView view("model", "fingerprint", ModelConfig(), directory.get(), &counters);
  ClusterControl control({}, directory.get(), &view, /*planner=*/nullptr);
  const auto drain = [&](const std::string& worker) {
    absl::Status status;
    absl::Notification done;
    control.SetDraining(worker, true, [&](const absl::StatusOr<cluster::v1::Worker>& drained) {
      status = drained.status();
      done.Notify();
    });
    done.WaitForNotification();
    return status;
  };
  // These shards know no such call: they were asked.
  EXPECT_TRUE(absl::IsUnimplemented(drain("expert-0"))) << drain("expert-0");
  EXPECT_TRUE(absl::IsUnimplemented(drain(a.address())));
  EXPECT_TRUE(absl::IsUnimplemented(drain(b.address())));
}

}  // namespace
}  // namespace gatefold
