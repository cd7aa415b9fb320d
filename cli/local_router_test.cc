#include "cli/local_router.h"

#include <grpcpp/grpcpp.h>
#include <gtest/gtest.h>

#include <algorithm>
#include <atomic>
#include <memory>
#include <thread>

#include "absl/time/clock.h"
#include "absl/time/time.h"
#include "gatefold/cluster/v1/cluster.grpc.pb.h"
#include "gatefold/inference/v1/inference.grpc.pb.h"
#include "gatefold/kernels/isa.h"
#include "gatefold/rpc/status.h"
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
    options.metrics_port = 0;
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

TEST_F(LocalRouterTest, TellsHowBusyItIs) {
  std::atomic<bool> enough = false;
  std::thread caller([this, &enough] {
    const auto inference = inference::v1::InferenceService::NewStub(router_->channel());
    inference::v1::GenerateTextRequest request;
    for (const int32_t id : {5, 6, 7}) request.mutable_prompt()->mutable_token_ids()->add_ids(id);
    request.mutable_config()->set_max_output_tokens(60);
    request.mutable_config()->set_ignore_eos(true);
    while (!enough) {
      grpc::ClientContext context;
      inference::v1::GenerateTextResponse answer;
      EXPECT_TRUE(inference->GenerateText(&context, request, &answer).ok());
    }
  });
  bool has_sequences = false;
  double busy = 0;
  cluster::v1::Worker worker;
  const absl::Time deadline = absl::Now() + absl::Seconds(30);
  while ((!has_sequences || busy == 0) && absl::Now() < deadline) {
    grpc::ClientContext context;
    cluster::v1::ListWorkersResponse workers;
    if (!cluster_->ListWorkers(&context, {}, &workers).ok() || workers.workers_size() != 1) break;
    worker = workers.workers(0);
    has_sequences |= worker.n_sequences() == 1;
    busy = std::max(busy, worker.busy_ratio());
  }
  enough = true;
  caller.join();
  EXPECT_TRUE(has_sequences);
  EXPECT_GT(busy, 0);
  EXPECT_LE(busy, 1);
  EXPECT_EQ(worker.numerics_class(), kernels::NumericsClass());
  EXPECT_NE(worker.metrics_address(), "");
  EXPECT_EQ(worker.metrics_address(), router_->metrics_address());
}

TEST_F(LocalRouterTest, CountsWhatItComputesAndWhatOnlyItHolds) {
  grpc::ClientContext generate, list;
  inference::v1::GenerateTextRequest request;
  for (const int32_t id : {5, 6, 7}) request.mutable_prompt()->mutable_token_ids()->add_ids(id);
  request.mutable_config()->set_max_output_tokens(2);
  request.mutable_config()->set_ignore_eos(true);
  inference::v1::GenerateTextResponse answer;
  const auto inference = inference::v1::InferenceService::NewStub(router_->channel());
  const absl::Status status = FromGrpcStatus(inference->GenerateText(&generate, request, &answer));
  ASSERT_TRUE(status.ok()) << status;
  cluster::v1::ListWorkersResponse workers;
  ASSERT_TRUE(cluster_->ListWorkers(&list, {}, &workers).ok());
  ASSERT_EQ(workers.workers_size(), 1);
  EXPECT_EQ(workers.workers(0).rows_served(), 4 * 4 * 2);  // tokens, layers, experts
  EXPECT_EQ(workers.workers(0).n_sole_experts(), 4 * 8);
}

}  // namespace
}  // namespace gatefold
