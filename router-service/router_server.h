#pragma once

#include <functional>
#include <memory>
#include <string>
#include <vector>

#include "absl/status/statusor.h"
#include "gatefold/base/thread_pool.h"
#include "gatefold/engine/attention_client.h"
#include "gatefold/engine/expert_client.h"
#include "gatefold/engine/router_model.h"
#include "gatefold/engine/step_rows.h"
#include "gatefold/rpc/health.h"
#include "gatefold/rpc/server.h"
#include "router-service/admin_server.h"
#include "router-service/gateway/cluster_admin.h"
#include "router-service/gateway/cluster_view.h"
#include "router-service/gateway/cluster_watch.h"
#include "router-service/gateway/gateway.h"
#include "router-service/options.h"
#include "router-service/scheduler/scheduler.h"

namespace gatefold {

class RouterMeter;

// Where a router's lanes lead: into this process, or over the network. That choice is all that
// tells the three shapes (local, colocated, cluster) apart.
struct RouterDoors {
  std::function<absl::StatusOr<std::unique_ptr<AttentionClient>>(int lane)> attention;
  std::function<absl::StatusOr<std::unique_ptr<ExpertClient>>(int lane)> experts;
  // A lane's rows between the two; null: in host memory.
  std::function<std::unique_ptr<StepRows>(int lane)> rows;
  int max_sequence_tokens = 0;           // what attention can hold of one sequence
  const ClusterView* cluster = nullptr;  // outlives the router
  ClusterAdmin* admin = nullptr;         // likewise; null: workers cannot be told anything
};

// A router above its doors: scheduler, gateway, public server.
class RouterServer {
 public:
  // Weights, threads, meter and whatever the doors lead to outlive the router. It serves when this
  // returns.
  static absl::StatusOr<std::unique_ptr<RouterServer>> Start(const RouterOptions& options,
                                                             const ModelWeights& weights,
                                                             ThreadPool* threads,
                                                             const RouterDoors& doors,
                                                             RouterMeter* meter);
  ~RouterServer();

  // Empty if it listens nowhere.
  std::string address() const;
  std::string admin_address() const { return admin_ == nullptr ? "" : admin_->address(); }
  std::shared_ptr<grpc::Channel> InProcessChannel() { return server_->InProcessChannel(); }
  GenerationService::Load load() const { return scheduler_->load(); }

  // Tells load balancers, sends callers away for their next requests, finishes those under way, and
  // stops. What has not ended by the drain limit ends with kUnavailable, to be resumed elsewhere.
  void Drain();

 private:
  RouterServer(const RouterOptions& options, RouterMeter* meter)
      : options_(options), meter_(meter) {}
  absl::Status StartScheduler(const ModelWeights& weights, ThreadPool* threads,
                              const RouterDoors& doors);
  absl::Status StartGateway(const ModelWeights& weights, const RouterDoors& doors);
  absl::Status Listen(const RouterDoors& doors);

  const RouterOptions options_;
  RouterMeter* const meter_;
  std::unique_ptr<RouterModel> model_;
  // In the order of need: a request goes through the server, the gateway, the scheduler.
  std::unique_ptr<Scheduler> scheduler_;
  std::unique_ptr<Gateway> gateway_;
  HealthService health_;
  std::unique_ptr<ClusterWatch> watch_;
  std::unique_ptr<RpcServer> server_;
  std::unique_ptr<AdminServer> admin_;  // null: not wanted
};

}  // namespace gatefold
