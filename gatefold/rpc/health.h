#pragma once

#include <memory>

#include "absl/strings/string_view.h"
#include "gatefold/rpc/server.h"

namespace gatefold {

// grpc.health.v1: Check, and Watch, which sends the status now and each time it changes. "" stands
// for the server as a whole. Names nobody set are NOT_FOUND (Check) or SERVICE_UNKNOWN (Watch).
// Threads: safe.
class HealthService {
 public:
  HealthService();
  ~HealthService();

  // Before the server starts. One service may be registered at several servers and may go before
  // them.
  void Register(RpcServer* server);

  void SetServing(absl::string_view service, bool serving);
  // NOT_SERVING for every name, now and for good: the first step of a drain.
  void SetAllNotServing();

 private:
  class Impl;
  std::shared_ptr<Impl> impl_;
};

}  // namespace gatefold
