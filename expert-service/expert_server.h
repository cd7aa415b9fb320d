#pragma once

#include <functional>
#include <memory>
#include <string>
#include <vector>

#include "absl/status/statusor.h"
#include "expert-service/checkpoint_experts.h"
#include "expert-service/expert_sender.h"
#include "expert-service/expert_service.h"
#include "expert-service/expert_supply.h"
#include "expert-service/options.h"
#include "expert-service/shard_experts.h"
#include "gatefold/base/thread_pool.h"
#include "gatefold/rpc/health.h"
#include "gatefold/rpc/health_listener.h"
#include "gatefold/rpc/server.h"
#include "gatefold/rpc/tls.h"

namespace gatefold {

class ExpertMeter;

// One shard: weights, threads, and the gRPC server in front of them.
class ExpertServer {
 public:
  // Listens at once, so that routers see it loading, and returns when the experts are loaded. With
  // none it takes what a planner assigns.
  static absl::StatusOr<std::unique_ptr<ExpertServer>> Start(const ExpertServiceOptions& options);
  ~ExpertServer();

  std::string address() const { return server_->address(); }
  std::string metrics_address() const;

  // Announces draining, answers what still comes until nothing came for a while and a planner, if
  // there is one, has nothing here that others lack, and stops.
  void Drain();

 private:
  explicit ExpertServer(const ExpertServiceOptions& options);
  absl::Status Assemble();
  absl::Status Listen();
  // Where experts come from.
  absl::Status OpenSources();
  // --tls-peer-name, but that shards, too, may fetch experts.
  std::function<absl::Status(CallContext*)> PeerCheck() const;
  absl::Status Load();
  absl::Status LoadFixed(const std::vector<ExpertId>& experts);
  bool IsNeeded() const;  // a planner has not had it give up what it holds

  const ExpertServiceOptions options_;
  TransportSecurity security_;
  ThreadPool threads_;
  std::unique_ptr<ExpertCatalog> catalog_;
  std::unique_ptr<ExpertBackend> backend_;
  std::unique_ptr<ExpertStore> store_;
  std::unique_ptr<ExpertRunner> runner_;
  std::unique_ptr<ExpertMeter> meter_;
  std::unique_ptr<CheckpointExperts> checkpoint_experts_;  // null: there are no weights here
  std::unique_ptr<ShardExperts> shard_experts_;            // null: other shards are not asked
  std::unique_ptr<ExpertSupply> supply_;
  std::unique_ptr<ExpertSender> sender_;
  std::unique_ptr<ExpertService> service_;
  std::unique_ptr<ExpertLoader> loader_;  // null: the experts are fixed
  HealthService health_;
  std::unique_ptr<HealthListener> probes_;
  std::unique_ptr<RpcServer> server_;  // last: its handlers use all of the above
};

}  // namespace gatefold
