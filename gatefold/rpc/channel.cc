#include "gatefold/rpc/channel.h"

#include <grpcpp/create_channel.h>

#include "gatefold/base/status_macros.h"
#include "gatefold/rpc/address.h"
#include "gatefold/rpc/frame.h"

namespace gatefold {
namespace {

grpc::ChannelArguments ArgumentsFor(ChannelKind kind, const ChannelOptions& options) {
  grpc::ChannelArguments arguments;
  arguments.SetMaxReceiveMessageSize(options.max_received_bytes);
  arguments.SetMaxSendMessageSize(kMaxMessageBytes);
  arguments.SetInt("grpc.use_local_subchannel_pool", 1);
  arguments.SetInt("grpc.enable_http_proxy", 0);
  // Retries are the router's business, and gRPC 1.51's retry filter loses the completions of a
  // stream that is cancelled while its first message is under way: its queue then never drains.
  arguments.SetInt("grpc.enable_retries", 0);
  arguments.SetInt("grpc.keepalive_time_ms",
                   static_cast<int>(absl::ToInt64Milliseconds(options.keepalive_time)));
  arguments.SetInt("grpc.keepalive_timeout_ms",
                   static_cast<int>(absl::ToInt64Milliseconds(options.keepalive_timeout)));
  arguments.SetInt("grpc.http2.max_pings_without_data", 0);  // no limit: streams may idle for hours
  // A peer that comes back is used again soon; gRPC's defaults are 20 s per attempt and 2 minutes
  // between attempts.
  const int backoff_ms = static_cast<int>(absl::ToInt64Milliseconds(options.max_reconnect_backoff));
  arguments.SetInt("grpc.initial_reconnect_backoff_ms", std::min(100, backoff_ms));
  // The time one attempt may take, whatever its name says.
  arguments.SetInt("grpc.min_reconnect_backoff_ms",
                   static_cast<int>(absl::ToInt64Milliseconds(options.connect_timeout)));
  arguments.SetInt("grpc.max_reconnect_backoff_ms", backoff_ms);
  if (!options.security.server_name().empty()) {
    arguments.SetSslTargetNameOverride(options.security.server_name());
  }
  if (kind == ChannelKind::kBulk) {
    arguments.SetInt("grpc.http2.max_frame_size", 16777215);
    arguments.SetInt("grpc.http2.lookahead_bytes", 16777216);
    arguments.SetInt("grpc.http2.bdp_probe", 0);
  }
  return arguments;
}

}  // namespace

absl::StatusOr<std::shared_ptr<grpc::Channel>> MakeChannel(absl::string_view address,
                                                           ChannelKind kind,
                                                           const ChannelOptions& options) {
  GF_ASSIGN_OR_RETURN(const Address parsed, ParseAddress(address));
  if (parsed.kind == Address::Kind::kTcp && parsed.port == 0) {
    return absl::InvalidArgumentError(
        absl::StrCat("address \"", address, "\": nobody can be reached at port 0"));
  }
  return grpc::CreateCustomChannel(parsed.ToString(), options.security.ChannelCredentials(parsed),
                                   ArgumentsFor(kind, options));
}

absl::StatusOr<PeerChannels> MakePeerChannels(absl::string_view address,
                                              const ChannelOptions& options) {
  PeerChannels channels;
  GF_ASSIGN_OR_RETURN(channels.decode, MakeChannel(address, ChannelKind::kDecode, options));
  GF_ASSIGN_OR_RETURN(channels.bulk, MakeChannel(address, ChannelKind::kBulk, options));
  return channels;
}

}  // namespace gatefold
