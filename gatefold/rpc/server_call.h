#pragma once

// What RpcServer gives to the kinds of methods (async_service.cc, stream_server.cc). Not for
// services.

#include <grpcpp/generic/async_generic_service.h>
#include <grpcpp/support/byte_buffer.h>

#include <atomic>
#include <cstdint>
#include <memory>

#include "absl/status/status.h"
#include "gatefold/rpc/call_context.h"
#include "gatefold/rpc/server.h"

namespace gatefold {

class ServerCall;

// The method's side of one call. Events come on the poll thread, one at a time, but for OnShutdown.
class CallObserver {
 public:
  virtual ~CallObserver() = default;
  virtual void OnRead(bool ok, grpc::ByteBuffer message) = 0;  // !ok: no more will come
  virtual void OnWritten(bool ok) = 0;
  // The client is gone. Finish must still be called.
  virtual void OnCancelled() = 0;
  // The call should end when it conveniently can. Threads: the one that calls Shutdown.
  virtual void OnShutdown() {}
  // Finish has completed and nothing is under way: the ServerCall is deleted after this.
  virtual void OnReleased() = 0;
};

// A method by name. Lives as long as the server.
class ServerMethod {
 public:
  virtual ~ServerMethod() = default;
  // Takes over a call and starts its first operation. Poll thread.
  virtual std::shared_ptr<CallObserver> Accept(ServerCall* call,
                                               std::shared_ptr<CallContext> context) = 0;
};

// What a call needs from the server it belongs to. Poll thread.
class CallHost {
 public:
  virtual ~CallHost() = default;
  virtual void RequestCall() = 0;  // asks gRPC for the next call
  virtual ServerMethod* FindMethod(const std::string& name) const = 0;
  virtual bool TooManyCalls() = 0;
  virtual absl::Status Authorize(CallContext* call) = 0;
  virtual void SetObserver(ServerCall* call, std::shared_ptr<CallObserver> observer) = 0;
  virtual void Report(const CallRecord& record) = 0;
  virtual void Hold(ServerCall* call, int64_t bytes) = 0;  // any thread
  virtual void Delete(ServerCall* call) = 0;
};

// gRPC's side of one call. At most one Read, one Write and, once, one Finish (or WriteAndFinish,
// after which there is no more Read or Write) are under way; the observer keeps count. The
// operations may be started from any thread until Finish.
class ServerCall {
 public:
  void Read();
  void Write(const grpc::ByteBuffer& message);
  // The last message and OK in one go.
  void WriteAndFinish(const grpc::ByteBuffer& message);
  void Finish(const absl::Status& status);
  // So many bytes of answers wait for the caller to take them; negative: so many do no longer. What
  // is left at the end of the call need not be taken back. As the operations.
  void Hold(int64_t bytes) { host_->Hold(this, bytes); }

 private:
  friend class RpcServer;
  enum class Operation { kAccept, kRead, kWrite, kFinish, kDone };
  // What comes out of the completion queue.
  struct Tag {
    ServerCall* call;
    Operation operation;
  };

  explicit ServerCall(CallHost* host) : host_(host) {}
  void Handle(Operation operation, bool ok);
  void Accepted();
  CallRecord Record() const;

  CallHost* const host_;
  grpc::GenericServerContext grpc_context_;
  grpc::GenericServerAsyncReaderWriter stream_{&grpc_context_};
  grpc::ByteBuffer incoming_;
  std::shared_ptr<CallContext> context_;
  std::shared_ptr<CallObserver> observer_;
  absl::string_view method_name_;  // as reported
  std::atomic<absl::StatusCode> code_{absl::StatusCode::kOk};
  // Operations under way, counting gRPC's report that the call is over; the finish that must come
  // counts from the start. The call is released at zero.
  std::atomic<int> pending_{2};

  Tag accept_tag_{this, Operation::kAccept};
  Tag read_tag_{this, Operation::kRead};
  Tag write_tag_{this, Operation::kWrite};
  Tag finish_tag_{this, Operation::kFinish};
  Tag done_tag_{this, Operation::kDone};
};

}  // namespace gatefold
