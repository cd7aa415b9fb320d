#pragma once

#include <memory>
#include <optional>

#include "absl/base/thread_annotations.h"
#include "absl/synchronization/mutex.h"
#include "gatefold/rpc/async_service.h"
#include "router-service/gateway/gateway.h"

namespace gatefold {

// Moves the events of a generation into a gRPC stream, as fast as its client reads. What the client
// has not read waits in the generation, where deltas merge, and not in the stream's queue.
// Threads: safe; Pump() runs on whichever thread has news.
class StreamPump : public std::enable_shared_from_this<StreamPump> {
 public:
  using Stream = ServerStream<Generation::Event>;

  explicit StreamPump(std::shared_ptr<Stream> stream) : stream_(std::move(stream)) {}

  // Starts to pump; calls on the stream's thread go on with it.
  void Start(std::unique_ptr<Generation> generation);

  // Until there is nothing to take, no room to write, or the end.
  void Pump();

 private:
  // True: the call is over.
  bool PumpAll() ABSL_EXCLUSIVE_LOCKS_REQUIRED(mu_);

  absl::Mutex mu_;
  std::shared_ptr<Stream> stream_ ABSL_GUARDED_BY(mu_);
  std::unique_ptr<Generation> generation_ ABSL_GUARDED_BY(mu_);
  std::optional<Generation::Event> unwritten_ ABSL_GUARDED_BY(mu_);  // there was no room for it
};

}  // namespace gatefold
