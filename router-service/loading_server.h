#pragma once

#include <functional>
#include <memory>
#include <string>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "gatefold/rpc/health.h"
#include "gatefold/rpc/server.h"
#include "router-service/gateway/gateway_service.h"

namespace gatefold {

// Stands at a router's public address until it can serve: a caller is told to come back, or what is
// wrong, instead of finding nobody there. ClusterService tells who is there and who is not; health
// is NOT_SERVING, but for liveness.
class LoadingServer {
 public:
  // `why`: the error of every request; called on the poll thread, and never OK. What is pointed to
  // outlives the server. It answers when this returns.
  static absl::StatusOr<std::unique_ptr<LoadingServer>> Start(ServerOptions options,
                                                              const ClusterServiceParts& cluster,
                                                              std::function<absl::Status()> why);
  ~LoadingServer();

  std::string address() const { return server_->address(); }

 private:
  LoadingServer() = default;

  HealthService health_;
  std::unique_ptr<RpcServer> server_;
};

}  // namespace gatefold
