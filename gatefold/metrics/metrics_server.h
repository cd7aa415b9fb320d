#pragma once

#include <memory>
#include <string>

#include "absl/status/statusor.h"
#include "absl/strings/string_view.h"
#include "gatefold/metrics/registry.h"

namespace prometheus {
class Exposer;
}

namespace gatefold {

// Serves GET /metrics over plain HTTP in Prometheus' text format. Owns two threads.
class MetricsServer {
 public:
  // host: an IPv4 address to listen on, "127.0.0.1" or "0.0.0.0"; port 0: any free one. The server
  // may outlive `registry`. Errors: kInvalidArgument; kUnavailable if the port cannot be had.
  static absl::StatusOr<std::unique_ptr<MetricsServer>> Start(absl::string_view host, int port,
                                                              const Registry& registry);
  ~MetricsServer();

  int port() const { return port_; }
  std::string address() const;  // "127.0.0.1:9100"; no scheme, no path

 private:
  MetricsServer() = default;

  std::string host_;
  int port_ = 0;
  std::shared_ptr<prometheus::Collectable> contents_;
  std::unique_ptr<prometheus::Exposer> exposer_;
};

}  // namespace gatefold
