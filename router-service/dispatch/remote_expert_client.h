#pragma once

#include <array>
#include <atomic>
#include <cstdint>
#include <memory>
#include <string>
#include <vector>

#include "absl/status/status.h"
#include "absl/time/time.h"
#include "gatefold/engine/expert_client.h"
#include "gatefold/internal/v1/expert.pb.h"
#include "gatefold/rpc/frame.h"
#include "gatefold/rpc/stream_client.h"
#include "router-service/dispatch/directory.h"
#include "router-service/dispatch/peer_link.h"

namespace gatefold {

// What a router counted of its dispatch, by shard index. Threads: safe.
struct DispatchCounters {
  DispatchCounters(size_t n_shards, size_t n_experts)
      : rows_served(n_shards), rows_sent(n_shards), messages(n_shards), rows_of_expert(n_experts) {}
  std::vector<std::atomic<uint64_t>> rows_served;  // (row, expert) pairs answered
  std::vector<std::atomic<uint64_t>> rows_sent;    // rows on the wire
  std::vector<std::atomic<uint64_t>> messages;
  std::vector<std::atomic<uint64_t>> rows_of_expert;  // answered, [layer, expert]
  // Calls that were not answered and so sent again, by RefusalReason; 0: no answer at all.
  std::array<std::atomic<uint64_t>, internal::v1::RefusalReason_ARRAYSIZE> retries{};
  std::atomic<uint64_t> queue_rows{0};  // (row, expert) pairs sent and not yet answered
};

struct RemoteExpertOptions {
  internal::v1::WireDtype dtype = internal::v1::WIRE_DTYPE_FLOAT32;
  WaitPolicy wait;
  ChannelOptions channels;
  absl::Duration call_timeout = absl::Seconds(20);  // then the shard counts as hung
  int max_attempts = 4;                             // per step and layer
};

// Sends each row once to every shard that holds some of its experts, and takes one answer per (row,
// expert). What fails is sent again, to a replica where there is one.
class RemoteExpertClient final : public ExpertClient {
 public:
  // Directory and counters outlive the client.
  RemoteExpertClient(const RemoteExpertOptions& options, uint64_t router_id, int d_model,
                     int experts_per_layer, Directory* directory, DispatchCounters* counters);
  ~RemoteExpertClient() override;

  absl::Status Run(const Step& step, int layer, const float* h, const Routes& routes,
                   float* answers, uint8_t* served_by) override;
  std::vector<std::string> ShardNames() const override;

 private:
  // One message to one shard and what its answer fills.
  struct Call {
    int shard = 0;
    std::vector<uint32_t> experts, n_rows_of_expert, rows;
    std::vector<int> sent_rows;  // rows of the step, in the order of the payload
    std::vector<size_t> slots;   // entries of the routes, in the order of the answer
    internal::v1::RefusalReason refusal = internal::v1::REFUSAL_REASON_UNSPECIFIED;
    bool done = false;
  };
  struct Batch;  // one Run() under way

  absl::Status Plan(Batch* batch);
  absl::Status Send(Batch* batch, size_t call);
  absl::Status Collect(Batch* batch);
  absl::Status TakeAnswer(Batch* batch, Call* call, const grpc::ByteBuffer& answer);
  void Fail(Batch* batch, Call* call, const absl::Status& status);

  const RemoteExpertOptions options_;
  const uint64_t router_id_;
  const int d_model_;
  const int experts_per_layer_;
  Directory* const directory_;
  DispatchCounters* const counters_;
  StreamSet streams_;
  struct Link {
    std::string address;
    std::unique_ptr<PeerLink> link;  // null until used
  };
  std::vector<Link> links_;  // by shard
  uint64_t next_token_ = 1;
  std::vector<float> received_;
  FramePayload payload_;
};

}  // namespace gatefold
