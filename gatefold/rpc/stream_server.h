#pragma once

// Bidirectional streams of frames, answered in the order they arrive: the Run methods of the
// attention and expert services.
//
// Small frames are answered on the poll thread itself, for a hand-off to another thread costs as
// much as the whole hop. Others go to worker threads, and so do small ones that may take long:
// whose like lately did, or that would wait for what a worker computes. All other calls wait for
// the poll thread, and a service that does not say that it is alive is taken for dead. Frames of
// one stream are answered one after the other whichever thread does it.

#include <grpcpp/support/byte_buffer.h>

#include <bit>
#include <cstddef>
#include <memory>
#include <string>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/strings/string_view.h"
#include "absl/time/time.h"
#include "gatefold/rpc/call_context.h"
#include "gatefold/rpc/server.h"

namespace gatefold {

// One open stream. Deleted when the stream has ended, however it ended: what the caller owned is
// freed then.
class StreamSession {
 public:
  virtual ~StreamSession() = default;

  // Answers one frame that came in at `received`. One at a time per session, on the poll thread or
  // a worker. An error ends the stream with it: refuse a call with an answer that says so instead.
  virtual absl::StatusOr<grpc::ByteBuffer> OnFrame(grpc::ByteBuffer frame, absl::Time received) = 0;

  // Whether the poll thread may answer it. Runs on the poll thread, perhaps while a worker is in
  // OnFrame.
  virtual bool IsSmall(const grpc::ByteBuffer& frame) const { return frame.Length() <= 64 << 10; }

  // Frames of equal kinds take about as long as one another. Below kKinds; as IsSmall.
  static constexpr int kKinds = 512;
  virtual int KindOf(const grpc::ByteBuffer& frame) const {
    return static_cast<int>(std::bit_width(frame.Length()));
  }
};

// Opens sessions. Threads: OnOpen on the poll thread; Refuse as well, perhaps while workers run.
class StreamHandler {
 public:
  virtual ~StreamHandler() = default;

  // An error ends the stream with it.
  virtual absl::StatusOr<std::unique_ptr<StreamSession>> OnOpen(
      const std::shared_ptr<CallContext>& call) = 0;

  // The answer to a frame for which the queue has no room: a refusal that repeats the call's key.
  // Must be cheap.
  virtual grpc::ByteBuffer Refuse(const grpc::ByteBuffer& frame) = 0;
};

struct StreamOptions {
  int n_workers = 1;
  int max_streams = 256;          // more are RESOURCE_EXHAUSTED
  int max_frames_per_stream = 8;  // read and not yet answered; then reading stops
  // Waiting for a worker, over all streams, small ones aside; then frames are refused. Small ones
  // are bounded by the number of streams.
  int max_queued_frames = 64;
  size_t max_queued_bytes = size_t{256} << 20;
};

// Serves a bidirectional method with `handler`, which outlives the server. Ends the process if the
// service has no such method.
void AddStream(RpcServer* server, absl::string_view service, absl::string_view method,
               StreamHandler* handler, const StreamOptions& options);

}  // namespace gatefold
