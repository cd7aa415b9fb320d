#pragma once

// Long-lived streams to peers, many of them driven by one thread: the door of a lane to its shards.
//
//   StreamSet set(WaitPolicy::Block());
//   PeerStream* shard = set.Open(channels.decode, "/gatefold.internal.v1.ExpertService/Run");
//   for (each shard of the layer) shard->Send(WriteFrame(header, rows), token);
//   while (answers are missing && set.WaitAny(deadline, &event)) { ... }
//
// No second thread is involved: WaitAny reads and writes the sockets itself.

#include <grpcpp/channel.h>
#include <grpcpp/support/byte_buffer.h>

#include <atomic>
#include <cstdint>
#include <deque>
#include <functional>
#include <memory>
#include <string>
#include <vector>

#include "absl/status/status.h"
#include "absl/strings/string_view.h"
#include "absl/time/time.h"
#include "gatefold/rpc/traffic.h"
#include "gatefold/rpc/wait_policy.h"

namespace gatefold {

class PeerStream;

struct StreamEvent {
  enum class Kind {
    kAnswer,  // of the oldest call in flight on `stream`
    kBroken,  // the stream is over, for `status`; comes once, and nothing after it
    kWoken,   // StreamSet::Wake() was called; no stream
  };
  Kind kind = Kind::kAnswer;
  PeerStream* stream = nullptr;
  uint64_t token = 0;  // of the call that is answered; 0 for what a server-streaming method adds
  grpc::ByteBuffer answer;
  absl::Status status;  // OK only if the peer ended the stream by itself
};

// The streams of one thread. Threads: one at a time, but for Wake().
class StreamSet {
 public:
  explicit StreamSet(const WaitPolicy& policy);
  StreamSet(const StreamSet&) = delete;
  StreamSet& operator=(const StreamSet&) = delete;
  // Cancels what is open and waits until gRPC has let go of it; takes no time worth naming.
  ~StreamSet();

  struct OpenOptions {
    absl::Time deadline = absl::InfiniteFuture();  // of the whole stream
    std::vector<std::pair<std::string, std::string>> metadata;
    std::shared_ptr<PeerTraffic> traffic;  // counts what goes and comes; null: nothing does
    // Called once by the thread that waits, when gRPC is done with the stream: with the peer's
    // status, or kCancelled where Close() came before it.
    std::function<void(absl::StatusCode code, absl::Duration since_open)> on_end;
  };
  // Starts a call of any kind (unary and server-streaming ones have one Send, with SendLast). Never
  // waits: frames sent before the peer is connected are kept; a peer that cannot be reached comes
  // back as kBroken. The pointer is good until Close or the end of the set.
  PeerStream* Open(const std::shared_ptr<grpc::Channel>& channel, absl::string_view method,
                   const OpenOptions& options);
  PeerStream* Open(const std::shared_ptr<grpc::Channel>& channel, absl::string_view method);

  // Cancels the stream and forgets it: no event of it comes any more, `stream` is dangling.
  void Close(PeerStream* stream);

  // Next event of any stream. False: the deadline passed, and nothing is lost by it.
  bool WaitAny(absl::Time deadline, StreamEvent* event);

  // Makes the current or next WaitAny return kWoken. Several calls may give one event.
  // Threads: any.
  void Wake();

  size_t n_streams() const;

 private:
  friend class PeerStream;
  class Impl;
  std::unique_ptr<Impl> impl_;
};

// One stream to one method of one peer. Answers come in the order of the calls.
class PeerStream {
 public:
  ~PeerStream();

  // At most this many calls wait for an answer.
  static constexpr int kMaxInFlight = 256;

  // Sends a frame; `token` comes back with its answer. The payload's memory belongs to gRPC until
  // it lets go (see PayloadBuffer), also when the stream breaks. Errors: kUnavailable after the
  // stream broke (kBroken comes, or came, by itself); kResourceExhausted at kMaxInFlight.
  absl::Status Send(grpc::ByteBuffer frame, uint64_t token = 0);
  // The same, and tells the peer that no more will come.
  absl::Status SendLast(grpc::ByteBuffer frame, uint64_t token = 0);

  // Asks for the end of the stream; kBroken with kCancelled follows.
  void Cancel();

  // Tokens of the calls that have no answer yet, oldest first. After kBroken: those that are lost.
  const std::deque<uint64_t>& in_flight() const { return in_flight_; }
  bool broken() const { return broken_; }

  // For the caller's own use.
  void* user_data = nullptr;

 private:
  friend class StreamSet;
  friend class StreamSet::Impl;
  PeerStream() = default;
  PeerStream(const PeerStream&) = delete;

  absl::Status Send(grpc::ByteBuffer frame, uint64_t token, bool last);

  struct Call;  // the gRPC side
  std::unique_ptr<Call> call_;
  std::deque<uint64_t> in_flight_;
  std::shared_ptr<PeerTraffic> traffic_;
  std::deque<absl::Time> sent_at_;  // of the calls in flight, if there is traffic_
  bool broken_ = false;
};

}  // namespace gatefold
