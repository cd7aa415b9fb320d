#include "gatefold/rpc/channelz.h"

#include <grpc/grpc.h>
#include <grpc/support/alloc.h>
#include <grpcpp/ext/channelz_service_plugin.h>

#include <cstdint>
#include <memory>
#include <string>
#include <utility>

#include "absl/status/status.h"
#include "absl/strings/str_cat.h"
#include "gatefold/base/check.h"
#include "gatefold/rpc/async_service.h"
#include "gatefold/rpc/frame.h"
#include "google/protobuf/descriptor.h"
#include "google/protobuf/message.h"
#include "google/protobuf/util/json_util.h"

namespace gatefold {
namespace {

using google::protobuf::Message;

// Never called: a linker leaves out a library to which nothing refers, and the messages with it.
void (*const volatile kLibrary)() = &grpc::channelz::experimental::InitChannelzService;

constexpr char kService[] = "grpc.channelz.v1.Channelz";

int64_t Field(const Message& message, const std::string& name) {
  const auto* field = message.GetDescriptor()->FindFieldByName(name);
  GF_CHECK(field != nullptr);
  return message.GetReflection()->GetInt64(message, field);
}

// The core's answer, as JSON that the caller is to free; null if there is no such thing.
using Ask = char* (*)(const Message&);
struct Method {
  const char* name;
  Ask ask;
};
const Method kMethods[] = {
    {"GetTopChannels",
     [](const Message& m) { return grpc_channelz_get_top_channels(Field(m, "start_channel_id")); }},
    {"GetServers",
     [](const Message& m) { return grpc_channelz_get_servers(Field(m, "start_server_id")); }},
    {"GetServer", [](const Message& m) { return grpc_channelz_get_server(Field(m, "server_id")); }},
    {"GetServerSockets",
     [](const Message& m) {
       return grpc_channelz_get_server_sockets(Field(m, "server_id"), Field(m, "start_socket_id"),
                                               Field(m, "max_results"));
     }},
    {"GetChannel",
     [](const Message& m) { return grpc_channelz_get_channel(Field(m, "channel_id")); }},
    {"GetSubchannel",
     [](const Message& m) { return grpc_channelz_get_subchannel(Field(m, "subchannel_id")); }},
    {"GetSocket", [](const Message& m) { return grpc_channelz_get_socket(Field(m, "socket_id")); }},
};

absl::Status Answer(Ask ask, const Message& request, Message* response) {
  const std::unique_ptr<char, decltype(&gpr_free)> json(ask(request), &gpr_free);
  if (json == nullptr) {
    return absl::NotFoundError(
        absl::StrCat("there is no such thing: ", request.ShortDebugString()));
  }
  google::protobuf::util::JsonParseOptions options;
  options.ignore_unknown_fields = true;
  const auto parsed = google::protobuf::util::JsonStringToMessage(json.get(), response, options);
  if (!parsed.ok()) return absl::InternalError("what gRPC says of itself is no message");
  return absl::OkStatus();
}

}  // namespace

void AddChannelz(RpcServer* server) {
  GF_CHECK(kLibrary != nullptr);
  const auto* service =
      google::protobuf::DescriptorPool::generated_pool()->FindServiceByName(kService);
  GF_CHECK(service != nullptr);
  auto* const factory = google::protobuf::MessageFactory::generated_factory();
  MethodOptions options;
  options.max_open_calls = 16;
  for (const Method& method : kMethods) {
    const auto* descriptor = service->FindMethodByName(method.name);
    GF_CHECK(descriptor != nullptr);
    const Message* const response = factory->GetPrototype(descriptor->output_type());
    rpc_internal::AddMessageMethod(
        server,
        {kService, method.name, factory->GetPrototype(descriptor->input_type()), response, false},
        options,
        [ask = method.ask, response](std::shared_ptr<CallContext> /*call*/, Message&& request,
                                     std::shared_ptr<rpc_internal::CallWriter> writer) {
          const std::unique_ptr<Message> answer(response->New());
          const absl::Status status = Answer(ask, request, answer.get());
          if (status.ok()) writer->Write(WriteMessage(*answer));
          writer->Finish(status);
        });
  }
}

}  // namespace gatefold
