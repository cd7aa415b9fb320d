#pragma once

#include <cstdint>
#include <memory>
#include <unordered_map>
#include <utility>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/time/time.h"
#include "gatefold/engine/attention_client.h"
#include "gatefold/internal/v1/attention.pb.h"
#include "gatefold/rpc/frame.h"
#include "gatefold/rpc/stream_client.h"
#include "router-service/dispatch/directory.h"
#include "router-service/dispatch/peer_link.h"
#include "router-service/dispatch/prefix_affinity.h"

namespace gatefold {

struct RemoteAttentionOptions {
  internal::v1::WireDtype dtype = internal::v1::WIRE_DTYPE_FLOAT32;
  WaitPolicy wait;
  ChannelOptions channels;
  absl::Duration call_timeout = absl::Seconds(60);  // then the service counts as hung
  // Sequences of equal domains have equal keys and values for equal tokens, whichever router opened
  // them. 0: none of this router's share any.
  uint64_t cache_domain = 1;
};

// Attention on one or several attention-services. A sequence lives where a prompt that begins alike
// was computed before, unless another service has far more free KV blocks; a step's spans go to
// where their sequences live. Sequences leave a service that drains for another that does not.
class RemoteAttentionClient final : public AttentionClient {
 public:
  // Directory and affinity outlive the client; all lanes share them.
  RemoteAttentionClient(const RemoteAttentionOptions& options, uint64_t router_id, int lane,
                        int d_model, Directory* directory, PrefixAffinity* affinity);
  ~RemoteAttentionClient() override;

  absl::StatusOr<int> Open(const SequenceSpec& spec) override;
  void Close(SequenceId sequence) override;
  void Flush() override;
  absl::Status EmbedAndAttend(const Step& step, float* x) override;
  absl::Status Attend(const Step& step, int layer, float* x) override;
  absl::StatusOr<std::vector<Sampled>> Sample(const Step& step, const float* x) override;
  std::vector<Failed> TakeFailed() override { return std::exchange(failed_, {}); }
  int PlaceOf(SequenceId sequence) const override;

 private:
  // One attention-service as this lane uses it.
  struct Peer {
    std::string address;
    std::unique_ptr<PeerLink> link;
    std::vector<SequenceId> closing;
    int64_t n_free_blocks = 0;  // as it last said
    uint64_t incarnation = 0;
    uint32_t generation = 0;                     // how often this lane has lost what it had there
    absl::Time given_up = absl::InfinitePast();  // when a call to it had taken too long
  };
  // One message and what its answer fills.
  struct Call {
    int peer = 0;
    internal::v1::AttentionServiceRunRequest request;
    std::vector<SequenceId> sequences;      // of a step's call: whose rows they are
    std::vector<std::pair<int, int>> rows;  // (first row of the step, count), in payload order
    internal::v1::AttentionServiceRunResponse response;
    bool done = false;
  };

  internal::v1::AttentionServiceRunRequest Header(const Step& step, int layer,
                                                  internal::v1::AttentionOperation operation) const;
  // The peers that serve now. Forgets the sequences of one that restarted.
  std::vector<int> LivePeers();
  // Those of them where sequences may be opened.
  std::vector<int> Awake(std::vector<int> live) const;
  absl::StatusOr<int> OpenAt(int peer, const SequenceSpec& spec);
  absl::StatusOr<Peer*> Reach(int peer);
  // Fails those of the step's sequences that have no home, or one that drains while others do not.
  absl::Status FindHomes(const Step& step, bool any_live);
  // One call per service that has some of the step's sequences, for their spans.
  std::vector<Call> SpanCalls(const Step& step) const;
  // Tells services of the sequences that left them where the step would not: one that has none of
  // its spans would keep their KV blocks for as long as the lane is busy elsewhere, and one that
  // drains waits for its end.
  void FlushUncalled(const Step& step);
  // Tells all services, but those that are told later, of the sequences that left them.
  void FlushBut(const std::vector<bool>& later);
  bool In(int peer, WorkerEntry::State state) const;
  bool AnotherIsReady(int peer) const;
  // Sends all calls with the rows of x they name, waits for all answers, and writes answered rows
  // back to x if `x_out` is set.
  absl::Status RunCalls(std::vector<Call>* calls, const float* x_in, float* x_out);
  // Of the call and its sequences.
  void Fail(Call* call, const absl::Status& status);
  // Nothing came for a while: gives up on services that are gone for all others, too.
  absl::Status GiveUp(std::vector<Call>* calls, bool all);
  absl::Status Send(Call* call, uint64_t token, const float* x_in);
  absl::Status TakeAnswer(Call* call, const grpc::ByteBuffer& answer, float* x_out);
  // Its stream is gone, and so are this lane's sequences there.
  void Lose(int peer);

  const RemoteAttentionOptions options_;
  const uint64_t router_id_;
  const int lane_;
  const int d_model_;
  Directory* const directory_;
  PrefixAffinity* const affinity_;
  StreamSet streams_;
  std::vector<Peer> peers_;                   // by index in the directory
  std::unordered_map<SequenceId, int> home_;  // peer of each open sequence
  std::vector<Failed> failed_;                // of the step's call under way, or the last
  uint64_t next_token_ = 1;
  FramePayload payload_;
};

}  // namespace gatefold
