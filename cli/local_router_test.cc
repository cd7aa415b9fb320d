#include "cli/local_router.h"

#include <grpcpp/grpcpp.h>
#include <gtest/gtest.h>

#include <memory>

#include "absl/time/time.h"
#include "gatefold/cluster/v1/cluster.grpc.pb.h"
#include "tools/random_model.h"

namespace gatefold {
namespace {

class LocalRouterTest : public testing::Test {
 protected:
  void SetUp() override {
    LocalRouterOptions options;
    options.model_dir = testing::TempDir() + "/gatefold_local_router";
    options.kv_memory_bytes = 1 << 20;
    options.show_load_progress = false;
    RandomModelOptions model;
    model.max_positions = 64;
    ASSERT_TRUE(WriteRandomModel(model, options.model_dir).ok());
    auto router = LocalRouter::Start(options);
    ASSERT_TRUE(router.ok()) << router.status();
    router_ = *std::move(router);
    cluster_ = cluster::v1::ClusterService::NewStub(router_->channel());
  }

  std::unique_ptr<LocalRouter> router_;
  std::unique_ptr<cluster::v1::ClusterService::Stub> cluster_;
};

TEST_F(LocalRouterTest, TellsOfItsTopologyOnceSinceItDoesNotChange) {
  grpc::ClientContext context;
  context.set_deadline(absl::ToChronoTime(absl::Now() + absl::Seconds(1)));
  auto stream = cluster_->WatchTopology(&context, {});
  cluster::v1::WatchTopologyResponse response;
  ASSERT_TRUE(stream->Read(&response));
  EXPECT_EQ(response.cluster().topology_version(), 1);
  EXPECT_FALSE(stream->Read(&response));
  EXPECT_EQ(stream->Finish().error_code(), grpc::StatusCode::DEADLINE_EXCEEDED);
}

}  // namespace
}  // namespace gatefold
