#include "gatefold/rpc/health.h"

#include <thread>

#include "absl/time/clock.h"
#include "gatefold/rpc/channel.h"
#include "gatefold/rpc/reflection.h"
#include "gatefold/rpc/status.h"
#include "gatefold/rpc/stream_client.h"
#include "gmock/gmock.h"
#include "google/protobuf/descriptor.h"
#include "google/protobuf/descriptor.pb.h"
#include "google/protobuf/descriptor_database.h"
#include "grpc/health/v1/health.grpc.pb.h"
#include "grpc/reflection/v1alpha/reflection.grpc.pb.h"
#include "gtest/gtest.h"

namespace gatefold {
namespace {

using grpc::health::v1::Health;
using grpc::health::v1::HealthCheckRequest;
using grpc::health::v1::HealthCheckResponse;
using grpc::reflection::v1alpha::ServerReflection;
using grpc::reflection::v1alpha::ServerReflectionRequest;
using grpc::reflection::v1alpha::ServerReflectionResponse;
using ::testing::ElementsAre;

constexpr int kMaxCalls = 600;

class HealthTest : public ::testing::Test {
 protected:
  HealthTest() {
    ServerOptions options;
    options.addresses = {"127.0.0.1:0"};
    options.max_calls = kMaxCalls;
    server_ = std::make_unique<RpcServer>(options);
    health_.Register(server_.get());
    AddReflection(server_.get());
    EXPECT_TRUE(server_->Start().ok());
    const auto channel = *MakeChannel(server_->address(), ChannelKind::kDecode, ChannelOptions());
    stub_ = Health::NewStub(channel);
    reflection_ = ServerReflection::NewStub(channel);
  }

  absl::StatusOr<HealthCheckResponse::ServingStatus> Check(const std::string& service) {
    grpc::ClientContext context;
    HealthCheckRequest request;
    request.set_service(service);
    HealthCheckResponse response;
    const grpc::Status status = stub_->Check(&context, request, &response);
    if (!status.ok()) return FromGrpcStatus(status);
    return response.status();
  }

  HealthService health_;
  std::unique_ptr<RpcServer> server_;
  std::unique_ptr<Health::Stub> stub_;
  std::unique_ptr<ServerReflection::Stub> reflection_;
};

TEST_F(HealthTest, AnswersPerService) {
  EXPECT_EQ(Check("startup").status().code(), absl::StatusCode::kNotFound);
  health_.SetServing("startup", true);
  health_.SetServing("readiness", false);
  EXPECT_EQ(*Check("startup"), HealthCheckResponse::SERVING);
  EXPECT_EQ(*Check("readiness"), HealthCheckResponse::NOT_SERVING);
  health_.SetServing("readiness", true);
  EXPECT_EQ(*Check("readiness"), HealthCheckResponse::SERVING);
  EXPECT_FALSE(Check("").ok());
}

TEST_F(HealthTest, StaysDownOnceADrainBegan) {
  health_.SetServing("", true);
  health_.SetAllNotServing();
  EXPECT_EQ(*Check(""), HealthCheckResponse::NOT_SERVING);
  health_.SetServing("", true);
  EXPECT_EQ(*Check(""), HealthCheckResponse::NOT_SERVING);
}

TEST_F(HealthTest, TellsWatchersOfChangesOnly) {
  grpc::ClientContext context;
  HealthCheckRequest request;
  request.set_service("readiness");
  const auto reader = stub_->Watch(&context, request);
  HealthCheckResponse response;
  ASSERT_TRUE(reader->Read(&response));
  EXPECT_EQ(response.status(), HealthCheckResponse::SERVICE_UNKNOWN);
  health_.SetServing("other", true);
  health_.SetServing("readiness", false);
  health_.SetServing("readiness", false);
  ASSERT_TRUE(reader->Read(&response));
  EXPECT_EQ(response.status(), HealthCheckResponse::NOT_SERVING);
  health_.SetServing("readiness", true);
  ASSERT_TRUE(reader->Read(&response));
  EXPECT_EQ(response.status(), HealthCheckResponse::SERVING);
  std::thread shutdown([&] { server_->Shutdown(absl::InfiniteDuration()); });
  EXPECT_FALSE(reader->Read(&response));
  shutdown.join();
}

TEST_F(HealthTest, EndsASlowWatcherWithTheLastStatus) {
  grpc::ClientContext context;
  const auto reader = stub_->Watch(&context, {});
  for (int i = 0; i < 5000; ++i) health_.SetServing("", i % 2 == 0);
  health_.SetServing("", true);
  HealthCheckResponse response;
  do {
    ASSERT_TRUE(reader->Read(&response));
  } while (response.status() != HealthCheckResponse::SERVING);
  // More may follow from the queue; the last one says SERVING. Another status ends the doubt.
  health_.SetServing("", false);
  do {
    ASSERT_TRUE(reader->Read(&response));
  } while (response.status() == HealthCheckResponse::SERVING);
}

TEST_F(HealthTest, TakesNoMoreWatchersThanItsShare) {
  std::vector<std::unique_ptr<grpc::ClientContext>> contexts;
  std::vector<std::unique_ptr<grpc::ClientReader<HealthCheckResponse>>> readers;
  HealthCheckResponse response;
  for (int i = 0; i < 256; ++i) {
    contexts.push_back(std::make_unique<grpc::ClientContext>());
    readers.push_back(stub_->Watch(contexts.back().get(), {}));
    ASSERT_TRUE(readers.back()->Read(&response)) << i;
  }
  grpc::ClientContext context;
  const auto reader = stub_->Watch(&context, {});
  EXPECT_FALSE(reader->Read(&response));
  EXPECT_EQ(reader->Finish().error_code(), grpc::StatusCode::RESOURCE_EXHAUSTED);
  for (const auto& open : contexts) open->TryCancel();
}

// Nobody needs a key for them, and one connection may carry them all.
TEST_F(HealthTest, ChecksThatSendNoRequestLeaveRoomForOtherCalls) {
  const auto channel = *MakeChannel(server_->address(), ChannelKind::kDecode, ChannelOptions());
  StreamSet streams(WaitPolicy::Block());
  StreamEvent event;
  for (int i = 0; i < kMaxCalls; ++i) streams.Open(channel, "/grpc.health.v1.Health/Check");
  for (int i = 0; i < kMaxCalls - 256; ++i) {
    ASSERT_TRUE(streams.WaitAny(absl::Now() + absl::Seconds(20), &event)) << i;
    EXPECT_EQ(event.status.code(), absl::StatusCode::kResourceExhausted);
  }
  streams.Open(channel, "/no.such.Service/Method");
  ASSERT_TRUE(streams.WaitAny(absl::Now() + absl::Seconds(20), &event));
  EXPECT_EQ(event.status.code(), absl::StatusCode::kUnimplemented);
}

TEST_F(HealthTest, ForgetsWatchersThatLeave) {
  for (int i = 0; i < 20; ++i) {
    grpc::ClientContext context;
    const auto reader = stub_->Watch(&context, {});
    HealthCheckResponse response;
    ASSERT_TRUE(reader->Read(&response));
    context.TryCancel();
    reader->Finish();
    health_.SetServing("", i % 2 == 0);
  }
}

// --- reflection ---

class Reflector {
 public:
  explicit Reflector(ServerReflection::Stub* stub)
      : stream_(stub->ServerReflectionInfo(&context_)) {}
  ~Reflector() {
    stream_->WritesDone();
    EXPECT_TRUE(stream_->Finish().ok());
  }
  ServerReflectionResponse Ask(const ServerReflectionRequest& request) {
    ServerReflectionResponse response;
    EXPECT_TRUE(stream_->Write(request));
    EXPECT_TRUE(stream_->Read(&response));
    EXPECT_EQ(response.original_request().SerializeAsString(), request.SerializeAsString());
    return response;
  }

 private:
  grpc::ClientContext context_;
  std::unique_ptr<grpc::ClientReaderWriter<ServerReflectionRequest, ServerReflectionResponse>>
      stream_;
};

TEST_F(HealthTest, ListsServices) {
  Reflector reflector(reflection_.get());
  ServerReflectionRequest request;
  request.set_list_services("");
  const ServerReflectionResponse response = reflector.Ask(request);
  std::vector<std::string> names;
  for (const auto& service : response.list_services_response().service()) {
    names.push_back(service.name());
  }
  EXPECT_THAT(names,
              ElementsAre("grpc.health.v1.Health", "grpc.reflection.v1alpha.ServerReflection"));
}

TEST_F(HealthTest, DescribesServicesToClientsWithoutProtos) {
  Reflector reflector(reflection_.get());
  ServerReflectionRequest request;
  // Of the files of this program, not only of this server's services; this one has imports.
  request.set_file_containing_symbol("gatefold.internal.v1.ExpertService.Run");
  const ServerReflectionResponse response = reflector.Ask(request);
  google::protobuf::SimpleDescriptorDatabase database;
  for (const std::string& bytes : response.file_descriptor_response().file_descriptor_proto()) {
    google::protobuf::FileDescriptorProto file;
    ASSERT_TRUE(file.ParseFromString(bytes));
    database.Add(file);
  }
  google::protobuf::DescriptorPool pool(&database);
  const auto* method = pool.FindMethodByName("gatefold.internal.v1.ExpertService.Run");
  ASSERT_NE(method, nullptr);
  EXPECT_TRUE(method->client_streaming());
  EXPECT_NE(method->input_type()->FindFieldByName("hidden_states"), nullptr);
  request.set_file_by_filename("gatefold/internal/v1/wire.proto");
  EXPECT_EQ(reflector.Ask(request).file_descriptor_response().file_descriptor_proto_size(), 1);
}

TEST_F(HealthTest, SaysWhatItCannotFind) {
  Reflector reflector(reflection_.get());
  ServerReflectionRequest request;
  request.set_file_containing_symbol("no.such.Symbol");
  EXPECT_EQ(reflector.Ask(request).error_response().error_code(), 5);
  request.set_file_by_filename("no/such.proto");
  EXPECT_EQ(reflector.Ask(request).error_response().error_code(), 5);
  request.set_all_extension_numbers_of_type("no.such.Type");
  EXPECT_EQ(reflector.Ask(request).error_response().error_code(), 5);
  request.set_all_extension_numbers_of_type("grpc.health.v1.HealthCheckRequest");
  EXPECT_EQ(reflector.Ask(request).all_extension_numbers_response().base_type_name(),
            "grpc.health.v1.HealthCheckRequest");
  request.mutable_file_containing_extension()->set_containing_type("no.such.Type");
  EXPECT_EQ(reflector.Ask(request).error_response().error_code(), 5);
  EXPECT_EQ(reflector.Ask({}).error_response().error_code(), 3);
}

}  // namespace
}  // namespace gatefold
