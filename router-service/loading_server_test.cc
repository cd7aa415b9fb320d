#include "router-service/loading_server.h"

#include "gatefold/base/errors.h"
#include "gatefold/cluster/v1/cluster.grpc.pb.h"
#include "gatefold/inference/v1/inference.grpc.pb.h"
#include "gatefold/rpc/status.h"
#include "gmock/gmock.h"
#include "grpcpp/create_channel.h"
#include "gtest/gtest.h"
#include "router-service/gateway/gateway_fakes.h"

namespace gatefold {
namespace {

TEST(LoadingServerTest, SaysWhyNothingIsServedAndWhoIsThere) {
  FakeCluster cluster;
  ServerOptions options;
  options.addresses = {"127.0.0.1:0"};
  const auto server = LoadingServer::Start(options, {&cluster, nullptr, nullptr},
                                           [] { return ModelLoading(absl::Seconds(1)); });
  ASSERT_TRUE(server.ok()) << server.status();
  const auto channel =
      grpc::CreateChannel((*server)->address(), grpc::InsecureChannelCredentials());
  auto inference = inference::v1::InferenceService::NewStub(channel);

  grpc::ClientContext unary;
  inference::v1::GenerateTextResponse response;
  const absl::Status refused = FromGrpcStatus(inference->GenerateText(&unary, {}, &response));
  EXPECT_EQ(refused.code(), absl::StatusCode::kUnavailable);
  EXPECT_EQ(ReasonOf(refused), kModelLoading);
  EXPECT_EQ(RetryDelayOf(refused), absl::Seconds(1));

  grpc::ClientContext streaming;
  inference::v1::StreamGenerateTextResponse event;
  const auto stream = inference->StreamGenerateText(&streaming, {});
  EXPECT_FALSE(stream->Read(&event));
  EXPECT_EQ(ReasonOf(FromGrpcStatus(stream->Finish())), kModelLoading);

  grpc::ClientContext asking;
  cluster::v1::ListWorkersResponse workers;
  const auto status =
      cluster::v1::ClusterService::NewStub(channel)->ListWorkers(&asking, {}, &workers);
  EXPECT_TRUE(status.ok()) << status.error_message();
  EXPECT_EQ(workers.workers_size(), 3);
}

}  // namespace
}  // namespace gatefold
