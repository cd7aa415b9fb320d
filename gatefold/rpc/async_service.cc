#include "gatefold/rpc/async_service.h"

#include <deque>
#include <optional>
#include <utility>

#include "absl/base/thread_annotations.h"
#include "absl/strings/str_cat.h"
#include "absl/synchronization/mutex.h"
#include "gatefold/base/check.h"
#include "gatefold/base/errors.h"
#include "gatefold/rpc/method_name.h"
#include "gatefold/rpc/server_call.h"

namespace gatefold {
namespace rpc_internal {
namespace {

// One unary or server-streaming call: reads one request, then sends what handlers queue.
class MessageCall final : public CallObserver, public std::enable_shared_from_this<MessageCall> {
 public:
  // What a method has; it outlives its calls.
  struct Method {
    const google::protobuf::Message& request;  // prototype
    const bool server_streaming;
    const MethodOptions options;
    const MessageHandler handler;
    int n_open = 0;  // the poll thread's
  };

  MessageCall(Method* method, ServerCall* call, std::shared_ptr<CallContext> context)
      : method_(*method), context_(std::move(context)), call_(call) {}

  // Reads the request, unless too many calls are open.
  void Start();

  void OnRead(bool ok, grpc::ByteBuffer message) override;
  void OnWritten(bool ok) override;
  void OnCancelled() override;
  void OnShutdown() override;
  void OnReleased() override;

  StreamWrite Write(grpc::ByteBuffer message);
  void Finish(const absl::Status& status);
  void OnWritable(std::function<void()> callback);

 private:
  // Starts the next write or the finish. Starting an operation does not wait for the peer.
  void Pump() ABSL_EXCLUSIVE_LOCKS_REQUIRED(mu_);
  bool closed() const ABSL_EXCLUSIVE_LOCKS_REQUIRED(mu_) { return status_.has_value(); }
  bool HasRoom(size_t bytes) const ABSL_EXCLUSIVE_LOCKS_REQUIRED(mu_) {
    return queue_.empty() ||
           (method_.server_streaming && queue_.size() < method_.options.max_queued_messages &&
            queued_bytes_ + bytes <= method_.options.max_queued_bytes);
  }

  Method& method_;
  const std::shared_ptr<CallContext> context_;

  absl::Mutex mu_;
  ServerCall* call_ ABSL_GUARDED_BY(mu_);  // null once released
  std::deque<grpc::ByteBuffer> queue_ ABSL_GUARDED_BY(mu_);
  size_t queued_bytes_ ABSL_GUARDED_BY(mu_) = 0;
  bool writing_ ABSL_GUARDED_BY(mu_) = false;
  size_t written_bytes_ ABSL_GUARDED_BY(mu_) = 0;  // by the write that is under way
  bool finishing_ ABSL_GUARDED_BY(mu_) = false;
  bool refused_write_ ABSL_GUARDED_BY(mu_) = false;
  std::optional<absl::Status> status_ ABSL_GUARDED_BY(mu_);  // how to end, once known
  std::function<void()> on_writable_ ABSL_GUARDED_BY(mu_);
};

// What handlers hold: the end of the last one ends the call.
class HandlerWriter final : public CallWriter {
 public:
  explicit HandlerWriter(std::shared_ptr<MessageCall> call) : call_(std::move(call)) {}
  ~HandlerWriter() override {
    call_->Finish(absl::InternalError("the request was dropped without an answer"));
  }
  StreamWrite Write(grpc::ByteBuffer message) override { return call_->Write(std::move(message)); }
  void Finish(const absl::Status& status) override { call_->Finish(status); }
  void OnWritable(std::function<void()> callback) override {
    call_->OnWritable(std::move(callback));
  }

 private:
  const std::shared_ptr<MessageCall> call_;
};

void MessageCall::Start() {
  if (++method_.n_open > method_.options.max_open_calls) return Finish(QueueFull(absl::Seconds(1)));
  absl::MutexLock lock(&mu_);
  call_->Read();
}

void MessageCall::OnRead(bool ok, grpc::ByteBuffer message) {
  if (!ok) return Finish(absl::InvalidArgumentError("the call has no request message"));
  std::unique_ptr<google::protobuf::Message> request(method_.request.New());
  const absl::Status read = ReadMessage(message, method_.options.max_request_bytes,
                                        method_.options.max_request_parts, request.get());
  if (!read.ok()) return Finish(read);
  message.Clear();
  method_.handler(context_, std::move(*request),
                  std::make_shared<HandlerWriter>(shared_from_this()));
}

StreamWrite MessageCall::Write(grpc::ByteBuffer message) {
  const size_t bytes = message.Length();
  absl::MutexLock lock(&mu_);
  if (closed()) return StreamWrite::kClosed;
  if (!HasRoom(bytes)) {
    refused_write_ = true;
    return StreamWrite::kFull;
  }
  queue_.push_back(std::move(message));
  queued_bytes_ += bytes;
  call_->Hold(static_cast<int64_t>(bytes));
  Pump();
  return StreamWrite::kQueued;
}

void MessageCall::Finish(const absl::Status& status) {
  absl::MutexLock lock(&mu_);
  if (closed()) return;
  status_ = status;
  if (!method_.server_streaming && !status.ok()) queue_.clear();
  Pump();
}

void MessageCall::OnWritable(std::function<void()> callback) {
  absl::MutexLock lock(&mu_);
  if (!closed()) on_writable_ = std::move(callback);
}

void MessageCall::Pump() {
  if (writing_ || finishing_) return;
  const bool last = closed() && queue_.size() <= 1;
  if (last && (queue_.empty() || status_->ok())) {
    finishing_ = true;
    if (queue_.empty()) return call_->Finish(*status_);
    call_->WriteAndFinish(queue_.front());
    queue_.clear();
    return;
  }
  if (queue_.empty()) return;
  // The answer of a unary call waits for its status, and both go in one piece.
  if (!method_.server_streaming && !closed()) return;
  writing_ = true;
  written_bytes_ = queue_.front().Length();
  queued_bytes_ -= written_bytes_;
  call_->Write(queue_.front());
  queue_.pop_front();
}

void MessageCall::OnWritten(bool ok) {
  std::function<void()> on_writable;
  {
    absl::MutexLock lock(&mu_);
    writing_ = false;
    call_->Hold(-static_cast<int64_t>(written_bytes_));
    if (!ok) {  // the client is gone; OnCancelled comes, or has come
      queue_.clear();
      if (!closed()) status_ = absl::CancelledError("the client is gone");
    }
    Pump();
    // Half of the room, so that a producer is not woken for every message.
    if (!closed() && refused_write_ && queue_.size() <= method_.options.max_queued_messages / 2 &&
        queued_bytes_ <= method_.options.max_queued_bytes / 2) {
      refused_write_ = false;
      on_writable = on_writable_;
    }
  }
  if (on_writable) on_writable();
}

void MessageCall::OnCancelled() {
  absl::MutexLock lock(&mu_);
  queue_.clear();
  if (!closed()) status_ = absl::CancelledError("the client is gone");
  Pump();
}

void MessageCall::OnShutdown() {
  if (method_.options.end_at_shutdown) Finish(Draining(absl::ZeroDuration()));
}

void MessageCall::OnReleased() {
  --method_.n_open;
  std::function<void()> forgotten;  // destroyed outside of the lock
  absl::MutexLock lock(&mu_);
  call_ = nullptr;
  forgotten = std::move(on_writable_);
  on_writable_ = nullptr;
}

class MessageMethod final : public ServerMethod {
 public:
  explicit MessageMethod(MessageCall::Method method) : method_(std::move(method)) {}

  std::shared_ptr<CallObserver> Accept(ServerCall* call,
                                       std::shared_ptr<CallContext> context) override {
    auto observer = std::make_shared<MessageCall>(&method_, call, std::move(context));
    observer->Start();
    return observer;
  }

 private:
  MessageCall::Method method_;
};

}  // namespace

void AddMessageMethod(RpcServer* server, const MethodShape& shape, const MethodOptions& options,
                      MessageHandler handler) {
  const google::protobuf::MethodDescriptor& method = FindMethod(shape.service, shape.method);
  GF_CHECK(method.input_type() == shape.request->GetDescriptor());
  GF_CHECK(method.output_type() == shape.response->GetDescriptor());
  GF_CHECK(!method.client_streaming() && method.server_streaming() == shape.server_streaming);
  server->AddMethod(MethodPath(shape.service, shape.method),
                    std::make_unique<MessageMethod>(MessageCall::Method{
                        *shape.request, shape.server_streaming, options, std::move(handler)}));
}

}  // namespace rpc_internal
}  // namespace gatefold
