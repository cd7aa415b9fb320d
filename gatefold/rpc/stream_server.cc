#include "gatefold/rpc/stream_server.h"

#include <utility>

#include "gatefold/base/check.h"
#include "gatefold/base/errors.h"
#include "gatefold/rpc/frame_stream.h"
#include "gatefold/rpc/method_name.h"
#include "gatefold/rpc/server_call.h"

namespace gatefold {
namespace {

// A stream that was refused at the door.
class RefusedStream final : public CallObserver {
 public:
  void OnRead(bool, grpc::ByteBuffer) override {}
  void OnWritten(bool) override {}
  void OnCancelled() override {}
  void OnReleased() override {}
};

class StreamMethod final : public ServerMethod {
 public:
  StreamMethod(StreamHandler* handler, const StreamOptions& options)
      : handler_(handler), options_(options), workers_(options) {}

  std::shared_ptr<CallObserver> Accept(ServerCall* call,
                                       std::shared_ptr<CallContext> context) override {
    if (!workers_.OpenStream()) {
      call->Finish(QueueFull(absl::Seconds(1)));
      return std::make_shared<RefusedStream>();
    }
    absl::StatusOr<std::unique_ptr<StreamSession>> session = handler_->OnOpen(context);
    if (!session.ok()) {
      workers_.CloseStream();
      call->Finish(session.status());
      return std::make_shared<RefusedStream>();
    }
    auto stream = std::make_shared<FrameStream>(call, *std::move(session), handler_, &workers_,
                                                options_.max_frames_per_stream);
    stream->Start();
    return stream;
  }

 private:
  StreamHandler* const handler_;
  const StreamOptions options_;
  FrameWorkers workers_;
};

}  // namespace

std::unique_ptr<ServerMethod> MakeStreamMethod(StreamHandler* handler,
                                               const StreamOptions& options) {
  return std::make_unique<StreamMethod>(handler, options);
}

void AddStream(RpcServer* server, absl::string_view service, absl::string_view method,
               StreamHandler* handler, const StreamOptions& options) {
  const google::protobuf::MethodDescriptor& descriptor = FindMethod(service, method);
  GF_CHECK(descriptor.client_streaming() && descriptor.server_streaming());
  GF_CHECK(options.n_workers >= 1 && options.max_frames_per_stream >= 1);
  server->AddMethod(MethodPath(service, method), MakeStreamMethod(handler, options));
}

}  // namespace gatefold
