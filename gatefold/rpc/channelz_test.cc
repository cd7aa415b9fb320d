#include "gatefold/rpc/channelz.h"

#include <grpcpp/generic/generic_stub.h>

#include <memory>
#include <string>

#include "absl/status/statusor.h"
#include "gatefold/rpc/channel.h"
#include "gatefold/rpc/frame.h"
#include "gatefold/rpc/status.h"
#include "gmock/gmock.h"
#include "google/protobuf/descriptor.h"
#include "google/protobuf/message.h"
#include "google/protobuf/util/json_util.h"
#include "gtest/gtest.h"

namespace gatefold {
namespace {

using google::protobuf::Message;
using ::testing::HasSubstr;

class ChannelzTest : public ::testing::Test {
 protected:
  ChannelzTest() {
    ServerOptions options;
    options.addresses = {"127.0.0.1:0"};
    server_ = std::make_unique<RpcServer>(options);
    AddChannelz(server_.get());
    EXPECT_TRUE(server_->Start().ok());
    channel_ = *MakeChannel(server_->address(), ChannelKind::kDecode, ChannelOptions());
  }

  // As JSON, both ways; without the spaces.
  absl::StatusOr<std::string> Call(const std::string& method, const std::string& json) {
    const auto* descriptor = google::protobuf::DescriptorPool::generated_pool()->FindMethodByName(
        "grpc.channelz.v1.Channelz." + method);
    auto* const factory = google::protobuf::MessageFactory::generated_factory();
    const std::unique_ptr<Message> request(factory->GetPrototype(descriptor->input_type())->New());
    const std::unique_ptr<Message> response(
        factory->GetPrototype(descriptor->output_type())->New());
    EXPECT_TRUE(google::protobuf::util::JsonStringToMessage(json, request.get()).ok());
    grpc::ClientContext context;
    grpc::CompletionQueue queue;
    grpc::GenericStub stub(channel_);
    const auto call = stub.PrepareUnaryCall(&context, "/grpc.channelz.v1.Channelz/" + method,
                                            WriteMessage(*request), &queue);
    call->StartCall();
    grpc::ByteBuffer answer;
    grpc::Status status;
    call->Finish(&answer, &status, nullptr);
    void* tag;
    bool ok;
    EXPECT_TRUE(queue.Next(&tag, &ok));
    if (!status.ok()) return FromGrpcStatus(status);
    EXPECT_TRUE(ReadMessage(answer, size_t{1} << 20, response.get()).ok());
    std::string text;
    EXPECT_TRUE(google::protobuf::util::MessageToJsonString(*response, &text).ok());
    return text;
  }

  std::unique_ptr<RpcServer> server_;
  std::shared_ptr<grpc::Channel> channel_;
};

TEST_F(ChannelzTest, TellsOfServersAndChannels) {
  const auto servers = Call("GetServers", "{}");
  ASSERT_TRUE(servers.ok()) << servers.status();
  EXPECT_THAT(*servers, HasSubstr("\"callsStarted\":"));
  const auto channels = Call("GetTopChannels", "{}");
  ASSERT_TRUE(channels.ok()) << channels.status();
  EXPECT_THAT(*channels, HasSubstr(server_->address()));
}

TEST_F(ChannelzTest, SaysWhatThereIsNot) {
  for (const auto& [method, field] :
       {std::pair("GetServer", "serverId"), std::pair("GetServerSockets", "serverId"),
        std::pair("GetChannel", "channelId"), std::pair("GetSubchannel", "subchannelId"),
        std::pair("GetSocket", "socketId")}) {
    for (const char* id : {"1000000", "0", "-5"}) {
      const auto answer = Call(method, std::string("{\"") + field + "\":\"" + id + "\"}");
      EXPECT_EQ(answer.status().code(), absl::StatusCode::kNotFound) << method << id;
    }
  }
}

}  // namespace
}  // namespace gatefold
