#pragma once

#include <atomic>
#include <memory>
#include <vector>

#include "absl/base/thread_annotations.h"
#include "absl/synchronization/mutex.h"
#include "expert-service/expert_loader.h"
#include "expert-service/expert_runner.h"
#include "expert-service/expert_sender.h"
#include "gatefold/internal/v1/expert.pb.h"
#include "gatefold/rpc/async_service.h"
#include "gatefold/rpc/stream_server.h"

namespace gatefold {

// Told about every call, on the thread that served it.
class ExpertObserver {
 public:
  virtual ~ExpertObserver() = default;
  virtual void OnCallStarted() = 0;
  virtual void OnCall(int layer, int n_rows, absl::Duration queue, absl::Duration compute) = 0;
};

// gRPC adapter of the runner: decode, validate, delegate, encode.
class ExpertService final : public StreamHandler {
 public:
  // Runner and observer outlive the service. `worker` describes this process; the service keeps
  // ready and draining in it up to date. `observer` may be null.
  ExpertService(ExpertRunner* runner, const internal::v1::WorkerDescription& worker,
                ExpertObserver* observer);

  // From now on the shard takes assignments. Before Register(); the loader outlives the server.
  void SetLoader(ExpertLoader* loader) { loader_ = loader; }
  // From now on it sends experts to other shards. Before Register(); the sender outlives the
  // server.
  void SetSender(ExpertSender* sender) { sender_ = sender; }

  // Adds its methods. The service outlives the server.
  void Register(RpcServer* server);

  // Until then calls are refused with NOT_READY.
  void SetReady() { SetState(&ready_); }
  // What an operator wants; errors as in expert.proto.
  absl::Status SetDrained(bool drained);
  // The process is going to end: for good.
  void SetDraining() {
    ending_ = true;
    SetState(&draining_);
  }
  // Tells every watcher what the shard is now.
  void Announce();
  // Ends the streams of all watchers: the shard is about to exit.
  void EndWatches();
  int n_watchers() const;

  absl::StatusOr<std::unique_ptr<StreamSession>> OnOpen(
      const std::shared_ptr<CallContext>& call) override;
  grpc::ByteBuffer Refuse(const grpc::ByteBuffer& frame) override;

  internal::v1::ExpertShard Describe() const;

  // Hands it to the loader once its numbers fit the model. Errors as in expert.proto.
  absl::Status Assign(const internal::v1::AssignRequest& request);

 private:
  class Session;
  using WatchStream = ServerStream<internal::v1::WatchResponse>;

  void SetState(std::atomic<bool>* state);

  ExpertRunner* const runner_;
  const internal::v1::WorkerDescription worker_;
  ExpertObserver* const observer_;
  ExpertLoader* loader_ = nullptr;  // null: the experts are fixed
  ExpertSender* sender_ = nullptr;  // null: nobody gets any
  std::atomic<uint64_t> busy_nanos_{0}, n_rows_computed_{0};
  std::atomic<bool> ending_{false};  // draining for good
  std::atomic<bool> ready_{false};
  std::atomic<bool> draining_{false};
  mutable absl::Mutex watchers_mu_;
  std::vector<std::shared_ptr<WatchStream>> watchers_ ABSL_GUARDED_BY(watchers_mu_);
};

}  // namespace gatefold
