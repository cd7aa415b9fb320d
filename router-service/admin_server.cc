#include "router-service/admin_server.h"

#include <utility>

#include "gatefold/base/errors.h"
#include "gatefold/base/status_macros.h"
#include "gatefold/rpc/channelz.h"
#include "gatefold/rpc/reflection.h"

namespace gatefold {

absl::StatusOr<std::unique_ptr<AdminServer>> AdminServer::Start(ServerOptions options,
                                                                const ClusterServiceParts& cluster,
                                                                Gateway* gateway,
                                                                ClusterAdmin* admin) {
  std::unique_ptr<AdminServer> admin_server(new AdminServer());
  options.for_probes = true;  // and for operators, who would find out why
  admin_server->server_ = std::make_unique<RpcServer>(std::move(options));
  RpcServer* const server = admin_server->server_.get();
  AddClusterService(server, cluster);
  AddAdminService(server, gateway, admin);
  admin_server->health_.Register(server);
  AddChannelz(server);
  AddReflection(server);
  for (const std::string& name : server->ServiceNames()) {
    admin_server->health_.SetServing(name, true);
  }
  admin_server->health_.SetServing("", true);
  if (const absl::Status started = server->Start(); !started.ok()) {
    return Annotate(started, "--admin-listen");
  }
  return admin_server;
}

AdminServer::~AdminServer() { server_->Shutdown(absl::ZeroDuration()); }

}  // namespace gatefold
