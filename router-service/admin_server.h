#pragma once

#include <memory>
#include <string>

#include "absl/status/statusor.h"
#include "gatefold/rpc/health.h"
#include "gatefold/rpc/server.h"
#include "router-service/gateway/gateway_service.h"

namespace gatefold {

// A port of its own for operators, so that who may send prompts cannot drain workers: AdminService
// and ClusterService.
class AdminServer {
 public:
  // What is pointed to outlives the server; `gateway` and `admin` may be null. It serves when this
  // returns.
  static absl::StatusOr<std::unique_ptr<AdminServer>> Start(ServerOptions options,
                                                            const ClusterServiceParts& cluster,
                                                            Gateway* gateway, ClusterAdmin* admin);
  ~AdminServer();

  std::string address() const { return server_->address(); }

 private:
  AdminServer() = default;

  HealthService health_;
  std::unique_ptr<RpcServer> server_;
};

}  // namespace gatefold
