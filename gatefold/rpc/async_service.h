#pragma once

// Unary and server-streaming methods whose answers may come later and from any thread.
//
//   AddUnary<GetModelRequest, GetModelResponse>(
//       &server, "gatefold.inference.v1.ModelService", "GetModel",
//       [](std::shared_ptr<CallContext> call, const GetModelRequest& request,
//          Respond<GetModelResponse> respond) { respond(...a StatusOr...); });
//
// Handlers run on the poll thread: they neither block nor compute, they hand work on. `request` is
// gone when the handler returns; one that hands it on takes it as a GetModelRequest&& and moves it,
// for copying a large one takes as long as parsing it. The types are checked against the service's
// descriptor.

#include <cstddef>
#include <functional>
#include <limits>
#include <memory>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/strings/string_view.h"
#include "gatefold/rpc/call_context.h"
#include "gatefold/rpc/frame.h"
#include "gatefold/rpc/server.h"
#include "google/protobuf/message.h"

namespace gatefold {

inline constexpr size_t kDefaultRequestBytes = size_t{4} << 20;
// 6 MiB of memory.
inline constexpr size_t kDefaultRequestParts = size_t{1} << 16;

struct MethodOptions {
  size_t max_request_bytes = kDefaultRequestBytes;  // larger ones are INVALID_ARGUMENT
  // See message_parts.h; what has more of them is INVALID_ARGUMENT before it is parsed.
  size_t max_request_parts = kDefaultRequestParts;
  // Server-streaming: messages and bytes that wait for a slow client.
  size_t max_queued_messages = 64;
  size_t max_queued_bytes = size_t{4} << 20;
  // Calls that have no end of their own (Watch): RpcServer::Shutdown ends them at once.
  bool end_at_shutdown = false;
  // Of this method at once; more are RESOURCE_EXHAUSTED. For what everybody may call: a call is
  // open from its first header to its end, and its caller need not send a request or read the
  // answer.
  int max_open_calls = std::numeric_limits<int>::max();
};

enum class StreamWrite {
  kQueued,
  kFull,    // not taken: the client reads too slowly. See ServerStream::OnWritable
  kClosed,  // not taken: the call is over, stop producing
};

namespace rpc_internal {

// What Respond and ServerStream stand for. Both calls are safe from any thread, and do nothing once
// the call is over.
class CallWriter {
 public:
  virtual ~CallWriter() = default;
  virtual StreamWrite Write(grpc::ByteBuffer message) = 0;
  virtual void Finish(const absl::Status& status) = 0;
  virtual void OnWritable(std::function<void()> callback) = 0;
};

using MessageHandler =
    std::function<void(std::shared_ptr<CallContext>, google::protobuf::Message&& request,
                       std::shared_ptr<CallWriter>)>;
struct MethodShape {
  absl::string_view service;
  absl::string_view method;
  const google::protobuf::Message* request = nullptr;  // prototypes
  const google::protobuf::Message* response = nullptr;
  bool server_streaming = false;
};
void AddMessageMethod(RpcServer* server, const MethodShape& shape, const MethodOptions& options,
                      MessageHandler handler);

}  // namespace rpc_internal

// Answers one unary call, once; more are ignored. If all copies are gone without an answer, the
// caller gets INTERNAL. Threads: safe.
template <typename Response>
class Respond {
 public:
  explicit Respond(std::shared_ptr<rpc_internal::CallWriter> writer) : writer_(std::move(writer)) {}

  void operator()(const absl::StatusOr<Response>& response) const {
    if (response.ok()) {
      writer_->Write(WriteMessage(*response));
      writer_->Finish(absl::OkStatus());
    } else {
      writer_->Finish(response.status());
    }
  }

 private:
  std::shared_ptr<rpc_internal::CallWriter> writer_;
};

// The answers of one server-streaming call. If all copies of the pointer are gone before Finish,
// the caller gets INTERNAL. Threads: safe.
template <typename Response>
class ServerStream {
 public:
  explicit ServerStream(std::shared_ptr<rpc_internal::CallWriter> writer)
      : writer_(std::move(writer)) {}

  // Queues the message; never waits.
  StreamWrite Write(const Response& message) { return writer_->Write(WriteMessage(message)); }
  // Ends the call after what is queued was sent; what is queued is always sent first.
  void Finish(const absl::Status& status) { writer_->Finish(status); }
  // Runs `callback` on the poll thread each time there is room again after kFull; never once the
  // call is over (CallContext::OnCancel has run, or Finish was called). Must not block.
  void OnWritable(std::function<void()> callback) { writer_->OnWritable(std::move(callback)); }

 private:
  std::shared_ptr<rpc_internal::CallWriter> writer_;
};

template <typename Request, typename Response>
using UnaryHandler =
    std::function<void(std::shared_ptr<CallContext>, Request&&, Respond<Response>)>;
template <typename Request, typename Response>
using ServerStreamingHandler = std::function<void(std::shared_ptr<CallContext>, Request&&,
                                                  std::shared_ptr<ServerStream<Response>>)>;

// service: full name, as "gatefold.cluster.v1.ClusterService". Ends the process if there is no such
// method of these types: that is a mistake in the program.
template <typename Request, typename Response>
void AddUnary(RpcServer* server, absl::string_view service, absl::string_view method,
              UnaryHandler<Request, Response> handler, const MethodOptions& options = {}) {
  rpc_internal::AddMessageMethod(
      server, {service, method, &Request::default_instance(), &Response::default_instance(), false},
      options,
      [handler = std::move(handler)](std::shared_ptr<CallContext> call,
                                     google::protobuf::Message&& request,
                                     std::shared_ptr<rpc_internal::CallWriter> writer) {
        handler(std::move(call), static_cast<Request&&>(request),
                Respond<Response>(std::move(writer)));
      });
}

template <typename Request, typename Response>
void AddServerStreaming(RpcServer* server, absl::string_view service, absl::string_view method,
                        ServerStreamingHandler<Request, Response> handler,
                        const MethodOptions& options = {}) {
  rpc_internal::AddMessageMethod(
      server, {service, method, &Request::default_instance(), &Response::default_instance(), true},
      options,
      [handler = std::move(handler)](std::shared_ptr<CallContext> call,
                                     google::protobuf::Message&& request,
                                     std::shared_ptr<rpc_internal::CallWriter> writer) {
        handler(std::move(call), static_cast<Request&&>(request),
                std::make_shared<ServerStream<Response>>(std::move(writer)));
      });
}

}  // namespace gatefold
