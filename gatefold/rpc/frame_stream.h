#pragma once

// One stream of stream_server.h and the threads that compute for it. Not for services.

#include <array>
#include <deque>
#include <memory>
#include <thread>
#include <vector>

#include "absl/base/thread_annotations.h"
#include "absl/synchronization/mutex.h"
#include "absl/time/time.h"
#include "gatefold/rpc/server_call.h"
#include "gatefold/rpc/stream_server.h"

namespace gatefold {

class FrameStream;

// What AddStream adds. Without workers every frame must be small.
std::unique_ptr<ServerMethod> MakeStreamMethod(StreamHandler* handler,
                                               const StreamOptions& options);

// Worker threads and the streams that wait for one. A stream is in the queue at most once, with all
// its frames; it goes to the back after each, so that streams take turns.
// Threads: safe.
class FrameWorkers {
 public:
  explicit FrameWorkers(const StreamOptions& options);
  ~FrameWorkers();  // no stream is left by then

  // Takes a place for a frame of that size, to be given back by Leave. False: the queue is full.
  bool Enter(size_t bytes, bool small);
  void Leave(size_t bytes, bool small);
  void Schedule(std::shared_ptr<FrameStream> stream);

  // Whether whoever answers a frame of that kind can expect to be done soon: no frame is with the
  // workers, which compute by turns, and those of that kind took moments of late.
  bool WouldBeQuick(int kind) const;
  // What one took to answer.
  void Took(int kind, absl::Duration time);

  bool OpenStream();  // false: there are too many
  void CloseStream();

 private:
  void Work();

  const StreamOptions options_;
  mutable absl::Mutex mu_;
  std::deque<std::shared_ptr<FrameStream>> ready_ ABSL_GUARDED_BY(mu_);
  int n_streams_ ABSL_GUARDED_BY(mu_) = 0;
  int n_frames_ ABSL_GUARDED_BY(mu_) = 0;
  int n_large_ ABSL_GUARDED_BY(mu_) = 0;  // of them
  size_t n_bytes_ ABSL_GUARDED_BY(mu_) = 0;
  // By kind: so many frames must be quick before one is expected to be.
  std::array<int, StreamSession::kKinds> n_to_prove_ ABSL_GUARDED_BY(mu_);
  bool stopping_ ABSL_GUARDED_BY(mu_) = false;
  std::vector<std::thread> threads_;
};

class FrameStream final : public CallObserver, public std::enable_shared_from_this<FrameStream> {
 public:
  // `workers` and `handler` outlive it.
  FrameStream(ServerCall* call, std::unique_ptr<StreamSession> session, StreamHandler* handler,
              FrameWorkers* workers, int max_frames)
      : handler_(handler),
        workers_(workers),
        max_frames_(max_frames),
        session_(std::move(session)),
        call_(call) {}

  // Starts reading. Poll thread.
  void Start();
  // Answers the oldest frame. Worker.
  void RunOne();

  void OnRead(bool ok, grpc::ByteBuffer message) override;
  void OnWritten(bool ok) override;
  void OnCancelled() override;
  void OnShutdown() override;
  void OnReleased() override;

 private:
  // A frame that waits for a worker, or the answer that refuses it, which waits only for its place
  // in the order.
  struct Waiting {
    grpc::ByteBuffer frame;
    absl::Time received;
    int kind = 0;
    bool small = false;
    bool refused = false;
  };

  void Enqueue(grpc::ByteBuffer frame, int kind, bool small) ABSL_EXCLUSIVE_LOCKS_REQUIRED(mu_);
  // By whoever set computing_.
  void Compute(grpc::ByteBuffer frame, int kind, absl::Time received) ABSL_LOCKS_EXCLUDED(mu_);
  void Answer(absl::StatusOr<grpc::ByteBuffer> answer) ABSL_LOCKS_EXCLUDED(mu_);
  void DropWaiting() ABSL_EXCLUSIVE_LOCKS_REQUIRED(mu_);
  void Abandon() ABSL_EXCLUSIVE_LOCKS_REQUIRED(mu_);  // nobody reads answers any more
  void End(const absl::Status& status) ABSL_EXCLUSIVE_LOCKS_REQUIRED(mu_);
  // Starts what can be started: a write, a read, a worker. Returns the session when nothing of the
  // stream is left to do.
  std::unique_ptr<StreamSession> Pump() ABSL_EXCLUSIVE_LOCKS_REQUIRED(mu_);
  // Pumps; deletes the session, outside of the lock, and only then lets gRPC end the call: after
  // RpcServer::Shutdown no session exists.
  void Settle() ABSL_LOCKS_EXCLUDED(mu_);

  StreamHandler* const handler_;
  FrameWorkers* const workers_;
  const int max_frames_;
  // Used by whoever set computing_, and by the poll thread for IsSmall and KindOf.
  std::unique_ptr<StreamSession> session_;

  absl::Mutex mu_;
  ServerCall* call_ ABSL_GUARDED_BY(mu_);  // null once released
  std::deque<Waiting> waiting_ ABSL_GUARDED_BY(mu_);
  std::deque<grpc::ByteBuffer> answers_ ABSL_GUARDED_BY(mu_);
  int n_frames_ ABSL_GUARDED_BY(mu_) = 0;  // read and their answers not yet written
  bool computing_ ABSL_GUARDED_BY(mu_) = false;
  bool scheduled_ ABSL_GUARDED_BY(mu_) = false;  // at the workers
  bool reading_ ABSL_GUARDED_BY(mu_) = false;
  bool writing_ ABSL_GUARDED_BY(mu_) = false;
  bool ending_ ABSL_GUARDED_BY(mu_) = false;  // no more reads; ends when all is answered
  bool ended_ ABSL_GUARDED_BY(mu_) = false;   // the session is gone or going
  absl::Status end_status_ ABSL_GUARDED_BY(mu_);
};

}  // namespace gatefold
