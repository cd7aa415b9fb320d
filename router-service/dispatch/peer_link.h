#pragma once

#include <memory>
#include <string>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "gatefold/rpc/channel.h"
#include "gatefold/rpc/stream_client.h"

namespace gatefold {

// One lane's streams to one worker: one for small frames, one for bulk. Opened when first used, and
// again after they broke. Threads: the lane's.
class PeerLink {
 public:
  // `set` outlives the link. `method`: full name of the Run method.
  static absl::StatusOr<std::unique_ptr<PeerLink>> Create(StreamSet* set,
                                                          const std::string& address,
                                                          const std::string& method,
                                                          const ChannelOptions& options);
  ~PeerLink() { Close(); }

  // Which stream a message goes to; `bytes` is the larger of the message and its answer.
  PeerStream* For(size_t bytes);

  // Forgets a stream that broke; For() opens another.
  void Forget(PeerStream* stream);
  // Closes both streams: calls in flight are never answered.
  void Close();

 private:
  PeerLink(StreamSet* set, PeerChannels channels, std::string method,
           StreamSet::OpenOptions options)
      : set_(set),
        channels_(std::move(channels)),
        method_(std::move(method)),
        options_(std::move(options)) {}
  PeerStream* Opened(PeerStream** stream, const std::shared_ptr<grpc::Channel>& channel);

  StreamSet* const set_;
  const PeerChannels channels_;
  const std::string method_;
  const StreamSet::OpenOptions options_;
  PeerStream* decode_ = nullptr;
  PeerStream* bulk_ = nullptr;
};

}  // namespace gatefold
