#include "router-service/loading_server.h"

#include <utility>

#include "gatefold/base/check.h"
#include "gatefold/base/status_macros.h"
#include "gatefold/rpc/async_service.h"
#include "gatefold/rpc/reflection.h"
#include "google/protobuf/descriptor.h"

namespace gatefold {
namespace {

// All methods of a service, refused.
void RefuseService(RpcServer* server, const std::string& name,
                   const std::function<absl::Status()>& why) {
  const auto* service = google::protobuf::DescriptorPool::generated_pool()->FindServiceByName(name);
  GF_CHECK(service != nullptr);
  auto* factory = google::protobuf::MessageFactory::generated_factory();
  for (int i = 0; i < service->method_count(); ++i) {
    const google::protobuf::MethodDescriptor* method = service->method(i);
    const rpc_internal::MethodShape shape = {
        name, method->name(), factory->GetPrototype(method->input_type()),
        factory->GetPrototype(method->output_type()), method->server_streaming()};
    rpc_internal::AddMessageMethod(
        server, shape, MethodOptions(),
        [why](std::shared_ptr<CallContext>, const google::protobuf::Message&,
              std::shared_ptr<rpc_internal::CallWriter> writer) { writer->Finish(why()); });
  }
}

}  // namespace

absl::StatusOr<std::unique_ptr<LoadingServer>> LoadingServer::Start(
    ServerOptions options, const ClusterServiceParts& cluster, std::function<absl::Status()> why) {
  std::unique_ptr<LoadingServer> loading(new LoadingServer());
  loading->server_ = std::make_unique<RpcServer>(std::move(options));
  RpcServer* const server = loading->server_.get();
  RefuseService(server, "gatefold.inference.v1.InferenceService", why);
  RefuseService(server, "gatefold.inference.v1.ModelService", why);
  AddClusterService(server, cluster);
  loading->health_.Register(server);
  AddReflection(server);
  for (const std::string& name : server->ServiceNames()) loading->health_.SetServing(name, false);
  for (const char* name : {"", "startup", "readiness"}) loading->health_.SetServing(name, false);
  loading->health_.SetServing("liveness", true);
  GF_RETURN_IF_ERROR(server->Start());
  return loading;
}

LoadingServer::~LoadingServer() { server_->Shutdown(absl::ZeroDuration()); }

}  // namespace gatefold
