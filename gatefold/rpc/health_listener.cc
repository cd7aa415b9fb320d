#include "gatefold/rpc/health_listener.h"

#include <cstdio>
#include <utility>

#include "absl/strings/str_cat.h"
#include "gatefold/base/status_macros.h"

namespace gatefold {

absl::StatusOr<std::unique_ptr<HealthListener>> HealthListener::Start(absl::string_view host,
                                                                      int port) {
  std::unique_ptr<HealthListener> listener(new HealthListener());
  if (port == -1) return listener;
  if (port < -1 || port > 65535) {
    return absl::InvalidArgumentError(
        absl::StrCat("--health-port is ", port, ", must be within -1 and 65535"));
  }
  ServerOptions options;
  options.addresses = {absl::StrCat(host, ":", port)};
  options.max_message_bytes = 4 << 10;  // a service's name; anybody may connect
  options.max_unread_bytes = 64 << 20;
  options.for_probes = true;
  options.max_calls = 1024;  // more than Check and Watch may have
  options.strict_pings = true;
  listener->server_ = std::make_unique<RpcServer>(std::move(options));
  listener->health_.Register(listener->server_.get());
  listener->health_.SetServing("liveness", true);
  for (const char* name : {"startup", "readiness", ""}) listener->health_.SetServing(name, false);
  GF_RETURN_IF_ERROR(listener->server_->Start());
  std::printf("health on %s\n", listener->address().c_str());
  std::fflush(stdout);
  return listener;
}

void HealthListener::SetStarted() { health_.SetServing("startup", true); }

void HealthListener::SetReady(bool ready) {
  for (const char* name : {"readiness", ""}) health_.SetServing(name, ready);
}

}  // namespace gatefold
