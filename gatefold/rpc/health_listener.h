#pragma once

#include <memory>
#include <string>

#include "absl/status/statusor.h"
#include "absl/strings/string_view.h"
#include "gatefold/rpc/health.h"
#include "gatefold/rpc/server.h"

namespace gatefold {

// Health and nothing else, in plaintext, on a port of its own: whoever probes a process (a kubelet)
// has no certificate for the service's port, and wants answers while weights still load.
//   startup    weights are loaded and verified
//   readiness  calls can be served now; "" says the same
//   liveness   the process answers; never depends on peers, weights or a drain
// Owns a server with one thread. Threads: safe.
class HealthListener {
 public:
  // Listens when this returns, with liveness SERVING and the others NOT_SERVING, and prints
  // "health on ADDRESS". port: 0 takes any free one; -1 listens nowhere.
  // Errors: kInvalidArgument for the port, kUnavailable for an address that cannot be had.
  static absl::StatusOr<std::unique_ptr<HealthListener>> Start(absl::string_view host, int port);

  void SetStarted();
  void SetReady(bool ready);

  // Empty if it listens nowhere.
  std::string address() const { return server_ == nullptr ? "" : server_->address(); }

 private:
  HealthListener() = default;

  HealthService health_;
  std::unique_ptr<RpcServer> server_;  // null: listens nowhere
};

}  // namespace gatefold
