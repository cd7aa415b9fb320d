#pragma once

#include <memory>
#include <string>

#include "absl/status/statusor.h"
#include "absl/strings/string_view.h"
#include "gatefold/metrics/registry.h"

namespace gatefold {

// Serves GET /metrics over plain HTTP/1.1 in Prometheus' text format. Owns a thread.
class MetricsServer {
 public:
  // host: an IP address to listen on; 0.0.0.0 is every one of this host, those of IPv6, too, as it
  // is to gRPC. port 0: any free one. The server may outlive `registry`.
  // Errors: kInvalidArgument; kUnavailable if the port cannot be had.
  static absl::StatusOr<std::unique_ptr<MetricsServer>> Start(absl::string_view host, int port,
                                                              const Registry& registry);
  ~MetricsServer();

  int port() const;
  std::string address() const;  // "127.0.0.1:9100", "[::1]:9100"; no scheme, no path

 private:
  class Listener;
  MetricsServer(std::string host, std::unique_ptr<Listener> listener);

  const std::string host_;
  const std::unique_ptr<Listener> listener_;
};

}  // namespace gatefold
