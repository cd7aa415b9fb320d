#pragma once

#include <cstdint>
#include <memory>
#include <unordered_map>
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

namespace gatefold {

struct RemoteAttentionOptions {
  internal::v1::WireDtype dtype = internal::v1::WIRE_DTYPE_FLOAT32;
  WaitPolicy wait;
  ChannelOptions channels;
  absl::Duration call_timeout = absl::Seconds(60);  // then the service counts as hung
};

// Attention on one or several attention-services. A sequence lives on the one with the most free KV
// blocks when it is opened; a step's spans go to where their sequences live.
class RemoteAttentionClient final : public AttentionClient {
 public:
  // The directory outlives the client.
  RemoteAttentionClient(const RemoteAttentionOptions& options, uint64_t router_id, int lane,
                        int d_model, Directory* directory);
  ~RemoteAttentionClient() override;

  absl::Status Open(const SequenceSpec& spec) override;
  void Close(SequenceId sequence) override;
  void Flush() override;
  absl::Status EmbedAndAttend(const Step& step, float* x) override;
  absl::Status Attend(const Step& step, int layer, float* x) override;
  absl::StatusOr<std::vector<Sampled>> Sample(const Step& step, const float* x) override;

 private:
  // One attention-service as this lane uses it.
  struct Peer {
    std::string address;
    std::unique_ptr<PeerLink> link;
    std::vector<SequenceId> closing;
    int64_t n_free_blocks = 0;  // as it last said
    uint64_t incarnation = 0;
  };
  // One message and what its answer fills.
  struct Call {
    int peer = 0;
    internal::v1::RunAttentionRequest request;
    std::vector<std::pair<int, int>> rows;  // (first row of the step, count), in payload order
    internal::v1::RunAttentionResponse response;
    bool done = false;
  };

  internal::v1::RunAttentionRequest Header(const Step& step, int layer,
                                           internal::v1::AttentionOperation operation) const;
  // The peers that serve now. Forgets the sequences of one that restarted.
  std::vector<int> LivePeers();
  absl::StatusOr<Peer*> Reach(int peer);
  absl::Status AddSpans(const Step& step, std::vector<Call>* calls) const;
  // Sends all calls with the rows of x they name, waits for all answers, and writes answered rows
  // back to x if `x_out` is set.
  absl::Status RunCalls(std::vector<Call>* calls, const float* x_in, float* x_out);
  absl::Status Send(Call* call, uint64_t token, const float* x_in);
  absl::Status TakeAnswer(Call* call, const grpc::ByteBuffer& answer, float* x_out);
  // Its stream is gone, and so are this lane's sequences there.
  void Lose(int peer);

  const RemoteAttentionOptions options_;
  const uint64_t router_id_;
  const int lane_;
  const int d_model_;
  Directory* const directory_;
  StreamSet streams_;
  std::vector<Peer> peers_;                   // by index in the directory
  std::unordered_map<SequenceId, int> home_;  // peer of each open sequence
  uint64_t next_token_ = 1;
  FramePayload payload_;
  std::vector<float> received_;
};

}  // namespace gatefold
