#pragma once

// A gRPC server with one completion queue and one thread that polls it. Every method is served on
// that thread unless it says otherwise, so handlers must neither block nor compute for long.
//
//   RpcServer server(options);
//   AddUnary<...>(&server, ...);  AddStream(&server, ...);  health.Register(&server);
//   AddReflection(&server);
//   GF_RETURN_IF_ERROR(server.Start());
//   ...
//   server.Shutdown(absl::Seconds(5));
//
// All calls come through gRPC's generic service and are dispatched by name here: a registered
// service needs neither generated stubs for the server nor all of its methods, and a method nobody
// added is UNIMPLEMENTED instead of hanging. No thread of gRPC's own runs handlers, and nothing
// here uses its callback API (mixing both costs tens of microseconds per message).

#include <grpcpp/channel.h>

#include <functional>
#include <memory>
#include <string>
#include <vector>

#include "absl/status/status.h"
#include "absl/strings/string_view.h"
#include "absl/time/time.h"
#include "gatefold/rpc/channel.h"
#include "gatefold/rpc/frame.h"
#include "gatefold/rpc/wait_policy.h"

namespace gatefold {

class CallContext;
class ServerMethod;

// One finished call, for metrics.
struct CallRecord {
  absl::string_view method;  // "/package.Service/Method"; "other" for unknown ones
  absl::StatusCode code = absl::StatusCode::kOk;
  absl::Duration duration;
};

struct ServerOptions {
  std::vector<std::string> addresses;  // see address.h; port 0 takes a free one
  TransportSecurity security;          // default: plaintext
  int unix_socket_mode = 0600;
  WaitPolicy wait;  // of the poll thread
  int max_message_bytes = kMaxMessageBytes;
  // Of a message that comes in, if less: refused before memory is taken for it.
  int max_request_bytes = kMaxMessageBytes;
  // Of all messages that have come in, whole or in part, and are not parsed yet; more, and gRPC
  // ends calls that send, RESOURCE_EXHAUSTED, until there is room. A few calls would else fill the
  // memory with messages that lack their last byte.
  size_t max_unread_bytes = size_t{1} << 30;
  // Of all answers that wait for their callers to take them; more, and the call whose caller has
  // taken nothing for longest is cancelled.
  int64_t max_untaken_bytes = int64_t{1} << 30;
  // Connections here may take descriptors that those of the process's other servers leave free.
  bool for_probes = false;
  int max_calls = 4096;  // open at once, streams included; more are RESOURCE_EXHAUSTED
  absl::Duration max_connection_age = absl::InfiniteDuration();
  absl::Duration keepalive_time = absl::Seconds(30);
  absl::Duration keepalive_timeout = absl::Seconds(20);
  bool strict_pings = false;  // true: punish clients that ping too often (public ports)
  // Asked on the poll thread about each call before anything of it is read; an error ends it. May
  // set the call's principal. Must be quick. Null: everybody may call everything.
  std::function<absl::Status(CallContext*)> authorize;
  // Called on the poll thread at the end of each call; must be quick.
  std::function<void(const CallRecord&)> on_call_done;

  absl::Status Validate() const;
};

class RpcServer {
 public:
  explicit RpcServer(ServerOptions options);
  RpcServer(const RpcServer&) = delete;
  RpcServer& operator=(const RpcServer&) = delete;
  ~RpcServer();  // Shutdown with no grace

  // Before Start. AddUnary, AddServerStreaming and AddStream call it.
  // name: "/package.Service/Method", added once.
  void AddMethod(absl::string_view name, std::unique_ptr<ServerMethod> method);

  // Errors: kInvalidArgument for options, kUnavailable for an address that cannot be had.
  absl::Status Start();

  // The port behind addresses[index]; 0 for unix sockets. After Start.
  int port(size_t index = 0) const;
  // As a client would write it: addresses[index] with the real port.
  std::string address(size_t index = 0) const;
  // To this server without a socket; for tests. After Start.
  std::shared_ptr<grpc::Channel> InProcessChannel();

  // Full names of the services that have a method here, sorted.
  std::vector<std::string> ServiceNames() const;

  // Takes no new calls; frame streams end once what they hold is answered; other calls may finish
  // within `grace`, then they are cancelled. Returns when every handler has been told and the poll
  // thread is gone. Safe to call twice. Not from a handler.
  void Shutdown(absl::Duration grace);

 private:
  class Impl;
  std::unique_ptr<Impl> impl_;
};

}  // namespace gatefold
