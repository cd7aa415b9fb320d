#include "gatefold/rpc/health_listener.h"

#include "absl/strings/str_cat.h"
#include "absl/time/clock.h"
#include "gatefold/rpc/channel.h"
#include "gatefold/rpc/frame.h"
#include "gatefold/rpc/status.h"
#include "gatefold/rpc/stream_client.h"
#include "gmock/gmock.h"
#include "grpc/health/v1/health.grpc.pb.h"
#include "gtest/gtest.h"

namespace gatefold {
namespace {

using grpc::health::v1::Health;
using grpc::health::v1::HealthCheckResponse;
using ::testing::HasSubstr;

absl::StatusOr<bool> IsServing(const HealthListener& listener, const std::string& service) {
  const auto stub =
      Health::NewStub(*MakeChannel(listener.address(), ChannelKind::kDecode, ChannelOptions()));
  grpc::ClientContext context;
  grpc::health::v1::HealthCheckRequest request;
  request.set_service(service);
  HealthCheckResponse response;
  const grpc::Status status = stub->Check(&context, request, &response);
  if (!status.ok()) return FromGrpcStatus(status);
  return response.status() == HealthCheckResponse::SERVING;
}

TEST(HealthListenerTest, IsAliveBeforeAnythingElse) {
  const auto listener = *HealthListener::Start("127.0.0.1", 0);
  EXPECT_TRUE(*IsServing(*listener, "liveness"));
  EXPECT_FALSE(*IsServing(*listener, "startup"));
  EXPECT_FALSE(*IsServing(*listener, "readiness"));
  EXPECT_FALSE(*IsServing(*listener, ""));
  EXPECT_EQ(IsServing(*listener, "other").status().code(), absl::StatusCode::kNotFound);
}

TEST(HealthListenerTest, ADrainTouchesReadinessAlone) {
  const auto listener = *HealthListener::Start("127.0.0.1", 0);
  listener->SetStarted();
  EXPECT_FALSE(*IsServing(*listener, "readiness"));
  listener->SetReady(true);
  EXPECT_TRUE(*IsServing(*listener, "readiness"));
  EXPECT_TRUE(*IsServing(*listener, ""));
  listener->SetReady(false);
  EXPECT_FALSE(*IsServing(*listener, "readiness"));
  EXPECT_TRUE(*IsServing(*listener, "startup"));
  EXPECT_TRUE(*IsServing(*listener, "liveness"));
}

TEST(HealthListenerTest, ServesNothingElse) {
  const auto listener = *HealthListener::Start("127.0.0.1", 0);
  const auto stub =
      Health::NewStub(*MakeChannel(listener->address(), ChannelKind::kDecode, ChannelOptions()));
  grpc::ClientContext context;
  grpc::health::v1::HealthCheckRequest request;
  request.set_service(std::string(8 << 10, 'x'));
  HealthCheckResponse response;
  EXPECT_EQ(stub->Check(&context, request, &response).error_code(),
            grpc::StatusCode::RESOURCE_EXHAUSTED);
}

// Who watches it must not have the kubelet believe that the process is dead.
TEST(HealthListenerTest, AsManyWatchersAsItTakesLeaveRoomForProbes) {
  const auto listener = *HealthListener::Start("127.0.0.1", 0);
  const auto channel = *MakeChannel(listener->address(), ChannelKind::kDecode, ChannelOptions());
  StreamSet streams(WaitPolicy::Block());
  StreamEvent event;
  for (int i = 0; i < 300; ++i) {
    (void)streams.Open(channel, "/grpc.health.v1.Health/Watch")
        ->SendLast(WriteMessage(grpc::health::v1::HealthCheckRequest()));
    ASSERT_TRUE(streams.WaitAny(absl::Now() + absl::Seconds(20), &event)) << i;
  }
  EXPECT_EQ(event.status.code(), absl::StatusCode::kResourceExhausted);
  EXPECT_TRUE(IsServing(*listener, "liveness").ok());
}

TEST(HealthListenerTest, MayListenNowhere) {
  const auto listener = *HealthListener::Start("127.0.0.1", -1);
  listener->SetStarted();
  listener->SetReady(true);
  EXPECT_EQ(listener->address(), "");
}

TEST(HealthListenerTest, RefusesPortsThatCannotBe) {
  for (int port : {-2, 65536}) {
    const auto listener = HealthListener::Start("127.0.0.1", port);
    EXPECT_EQ(listener.status().code(), absl::StatusCode::kInvalidArgument);
    EXPECT_THAT(std::string(listener.status().message()), HasSubstr(absl::StrCat(port)));
  }
  const auto first = *HealthListener::Start("127.0.0.1", 0);
  const int taken = std::stoi(first->address().substr(first->address().rfind(':') + 1));
  EXPECT_EQ(HealthListener::Start("127.0.0.1", taken).status().code(),
            absl::StatusCode::kUnavailable);
}

}  // namespace
}  // namespace gatefold
