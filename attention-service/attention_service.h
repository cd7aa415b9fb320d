#pragma once

#include <atomic>
#include <functional>
#include <memory>

#include "attention-service/attention_host.h"
#include "attention-service/lane_sequences.h"
#include "gatefold/internal/v1/attention.pb.h"
#include "gatefold/rpc/stream_server.h"

namespace gatefold {

// Told about every call, on the thread that served it.
class AttentionObserver {
 public:
  virtual ~AttentionObserver() = default;
  virtual void OnCall(int n_rows, absl::Duration queue, absl::Duration compute) = 0;
  // A sequence was opened whose tokens were looked for in the prefix cache.
  virtual void OnLookUp(int n_hit_tokens, int n_miss_tokens) = 0;
};

// gRPC adapter of the runner: decode, validate, delegate, encode.
class AttentionService final : public StreamHandler {
 public:
  // Host and observer outlive the service. `worker` describes this process; the service keeps
  // ready and draining in it up to date. `observer` may be null.
  AttentionService(AttentionHost* host, const internal::v1::WorkerDescription& worker,
                   AttentionObserver* observer);

  // Adds its methods. The service outlives the server.
  void Register(RpcServer* server);
  // The process is going to end: for good.
  void SetDraining() {
    ending_ = true;  // first: whoever takes a drain back meanwhile looks at it last
    draining_ = true;
  }
  // What an operator wants; errors as in attention.proto.
  absl::Status SetDrained(bool drained);

  absl::StatusOr<std::unique_ptr<StreamSession>> OnOpen(
      const std::shared_ptr<CallContext>& call) override;
  grpc::ByteBuffer Refuse(const grpc::ByteBuffer& frame) override;

  internal::v1::AttentionServiceDescribeResponse Describe() const;
  int n_sequences() const { return lanes_.n_sequences(); }

 private:
  class Session;

  AttentionHost* const host_;
  AttentionRunner* const runner_;
  const internal::v1::WorkerDescription worker_;
  AttentionObserver* const observer_;
  LaneRegistry lanes_;
  std::atomic<bool> draining_{false};
  std::atomic<bool> ending_{false};  // draining for good
  std::atomic<uint64_t> busy_nanos_{0};
};

}  // namespace gatefold
