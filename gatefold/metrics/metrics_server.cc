#include "gatefold/metrics/metrics_server.h"

#include <arpa/inet.h>
#include <prometheus/collectable.h>
#include <prometheus/exposer.h>

#include <exception>
#include <vector>

#include "absl/strings/str_cat.h"

namespace gatefold {

absl::StatusOr<std::unique_ptr<MetricsServer>> MetricsServer::Start(absl::string_view host,
                                                                    int port,
                                                                    const Registry& registry) {
  std::unique_ptr<MetricsServer> server(new MetricsServer());
  server->host_ = std::string(host);
  // The web server would read ports and options of its own in a string it is given.
  in_addr parsed;
  if (inet_pton(AF_INET, server->host_.c_str(), &parsed) != 1) {
    return absl::InvalidArgumentError(
        absl::StrCat("metrics host is \"", host, "\", must be an IPv4 address"));
  }
  if (port < 0 || port > 65535) {
    return absl::InvalidArgumentError(
        absl::StrCat("metrics port is ", port, ", must be within 0 and 65535"));
  }
  const std::vector<std::string> options = {
      "listening_ports", absl::StrCat(host, ":", port), "num_threads", "2", "request_timeout_ms",
      "10000",  // a scraper that stops reading does not keep a thread
  };
  // The library's way to say that it could not listen.
  try {
    server->exposer_ = std::make_unique<prometheus::Exposer>(options);
  } catch (const std::exception& error) {
    return absl::UnavailableError(absl::StrCat("cannot serve metrics on ", host, ":", port,
                                               "; is the port taken? (", error.what(), ")"));
  }
  server->port_ = server->exposer_->GetListeningPorts().at(0);
  server->contents_ = registry.collectable();
  server->exposer_->RegisterCollectable(server->contents_);
  return server;
}

MetricsServer::~MetricsServer() = default;

std::string MetricsServer::address() const { return absl::StrCat(host_, ":", port_); }

}  // namespace gatefold
