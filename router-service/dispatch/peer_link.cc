#include "router-service/dispatch/peer_link.h"

#include <utility>

#include "gatefold/base/status_macros.h"
#include "gatefold/rpc/traffic.h"

namespace gatefold {

absl::StatusOr<std::unique_ptr<PeerLink>> PeerLink::Create(StreamSet* set,
                                                           const std::string& address,
                                                           const std::string& method,
                                                           const ChannelOptions& options) {
  GF_ASSIGN_OR_RETURN(PeerChannels channels, MakePeerChannels(address, options));
  StreamSet::OpenOptions stream;
  if (const auto& table = options.traffic) {
    stream.traffic = table->Of(address);
    stream.on_end = [table, method](absl::StatusCode code, absl::Duration time) {
      table->OnAttempt(method, code, time);
    };
  }
  return std::unique_ptr<PeerLink>(
      new PeerLink(set, std::move(channels), method, std::move(stream)));
}

PeerStream* PeerLink::For(size_t bytes) {
  return bytes >= PeerChannels::kBulkBytes ? Opened(&bulk_, channels_.bulk)
                                           : Opened(&decode_, channels_.decode);
}

PeerStream* PeerLink::Opened(PeerStream** stream, const std::shared_ptr<grpc::Channel>& channel) {
  if (*stream == nullptr) {
    *stream = set_->Open(channel, method_, options_);
    (*stream)->user_data = this;
  }
  return *stream;
}

void PeerLink::Forget(PeerStream* stream) {
  if (stream == nullptr) return;
  if (decode_ == stream) decode_ = nullptr;
  if (bulk_ == stream) bulk_ = nullptr;
  set_->Close(stream);
}

void PeerLink::Close() {
  Forget(decode_);
  Forget(bulk_);
}

}  // namespace gatefold
