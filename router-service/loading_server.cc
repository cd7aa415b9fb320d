#include "router-service/loading_server.h"

#include <utility>

#include "gatefold/base/check.h"
#include "gatefold/base/status_macros.h"
#include "gatefold/inference/v1/inference.pb.h"
#include "gatefold/inference/v1/model.pb.h"
#include "gatefold/rpc/async_service.h"
#include "gatefold/rpc/reflection.h"
#include "google/protobuf/descriptor.h"

namespace gatefold {
namespace {

// All methods of a service, refused.
void RefuseService(RpcServer* server, const google::protobuf::ServiceDescriptor& service,
                   const std::function<absl::Status()>& why) {
  auto* factory = google::protobuf::MessageFactory::generated_factory();
  for (int i = 0; i < service.method_count(); ++i) {
    const google::protobuf::MethodDescriptor* method = service.method(i);
    const rpc_internal::MethodShape shape = {
        service.full_name(), method->name(), factory->GetPrototype(method->input_type()),
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
  for (const auto& [file, name] :
       {std::pair(inference::v1::GenerateTextRequest::descriptor()->file(), "InferenceService"),
        std::pair(inference::v1::Model::descriptor()->file(), "ModelService")}) {
    const google::protobuf::ServiceDescriptor* const service = file->FindServiceByName(name);
    GF_CHECK(service != nullptr);
    RefuseService(server, *service, why);
  }
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
