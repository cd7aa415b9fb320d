#pragma once

#include <grpcpp/channel.h>
#include <grpcpp/support/channel_arguments.h>

#include <memory>
#include <string>

#include "absl/status/statusor.h"
#include "absl/strings/string_view.h"
#include "absl/time/time.h"
#include "gatefold/rpc/frame.h"
#include "gatefold/rpc/tls.h"

namespace gatefold {

class TrafficTable;

// Decode channels carry messages of some KiB and want the least delay; bulk channels carry MiB.
// The arguments that make MiB fast make 64 KiB slow, so each has a connection of its own.
enum class ChannelKind { kDecode, kBulk };

struct ChannelOptions {
  TransportSecurity security;                            // default: plaintext
  absl::Duration keepalive_time = absl::Seconds(30);     // ping when idle that long
  absl::Duration keepalive_timeout = absl::Seconds(20);  // no answer: the connection is dead
  absl::Duration connect_timeout = absl::Seconds(2);     // of one attempt
  // Counts what goes to peers over streams (PeerLink); null: nothing does.
  std::shared_ptr<TrafficTable> traffic;
  int max_received_bytes = kMaxMessageBytes;  // of one message; a longer one ends its call
  // Between attempts. Short: services of a cluster come and go all the time, and a request waits.
  absl::Duration max_reconnect_backoff = absl::Milliseconds(250);
};

// A channel with its own connection (nothing is shared between channels). Never uses a proxy.
// Connects when first used. kInvalidArgument for a bad address.
absl::StatusOr<std::shared_ptr<grpc::Channel>> MakeChannel(absl::string_view address,
                                                           ChannelKind kind,
                                                           const ChannelOptions& options);

// The two channels of one lane to one peer. Lanes do not share channels: a connection is read by
// whichever thread polls it, and the other lane's thread would have to be woken.
struct PeerChannels {
  std::shared_ptr<grpc::Channel> decode;
  std::shared_ptr<grpc::Channel> bulk;

  // From this many bytes on a message is cheaper on the bulk channel.
  static constexpr size_t kBulkBytes = size_t{256} << 10;
  const std::shared_ptr<grpc::Channel>& For(size_t bytes) const {
    return bytes >= kBulkBytes ? bulk : decode;
  }
};
absl::StatusOr<PeerChannels> MakePeerChannels(absl::string_view address,
                                              const ChannelOptions& options);

}  // namespace gatefold
