#pragma once

#include <memory>
#include <string>
#include <vector>

#include "absl/status/statusor.h"
#include "absl/time/time.h"
#include "gatefold/rpc/traffic.h"
#include "router-service/cluster_control.h"
#include "router-service/directory_view.h"
#include "router-service/dispatch/directory.h"
#include "router-service/dispatch/discovery.h"
#include "router-service/dispatch/remote_attention_client.h"
#include "router-service/dispatch/remote_expert_client.h"
#include "router-service/options.h"
#include "router-service/planner/cluster_planner.h"
#include "router-service/router_server.h"

namespace gatefold {

struct ClusterOptions {
  WorkerTargets experts;
  WorkerTargets attention;     // empty: attention is colocated
  TransportSecurity security;  // of the connections to them
  bool allow_mixed_numerics = false;
  bool planner = false;  // this router plans which shard holds what
  int min_replicas = 1;  // of every expert, if it plans
};

// The doors of a router whose experts, and attention unless it is colocated, are other processes.
class ClusterDoors {
 public:
  static absl::StatusOr<std::unique_ptr<ClusterDoors>> Connect(const ClusterOptions& cluster,
                                                               const RouterOptions& options,
                                                               const ModelWeights& weights);

  // Until every expert is covered, attention is there and a shard that stays has decided the
  // numerics class, or the process is told to end. Logs what is missing every few seconds. False:
  // told to end.
  bool AwaitReady();

  // For callers, while it is not ready: MODEL_LOADING, or CHECKPOINT_MISMATCH if a worker serves
  // another model and so may be what is missing.
  absl::Status WhyNotReady() const;

  // Once it is ready. `local_attention`: makes clients of attention in this process; null where it
  // is remote.
  RouterDoors Doors(
      std::function<absl::StatusOr<std::unique_ptr<AttentionClient>>(int lane)> local_attention,
      int local_max_sequence_tokens) const;

  const DispatchCounters& counters() const { return *counters_; }
  TrafficTable* traffic() const { return traffic_.get(); }
  const Directory& directory() const { return *directory_; }
  bool remote_attention() const { return remote_attention_; }
  const ClusterPlanner* planner() const { return planner_.get(); }  // null: another router plans
  const ClusterView* view() const { return view_.get(); }
  ClusterAdmin* admin() const { return control_.get(); }

 private:
  ClusterDoors() = default;
  absl::Status SetOptions(const ClusterOptions& cluster, const RouterOptions& options,
                          const ModelWeights& weights);
  absl::Status FindWorkers(const ClusterOptions& cluster, const ModelConfig& config);
  absl::Status StartPlanner(const ClusterOptions& cluster, const ModelWeights& weights);
  int MaxSequenceTokens() const;

  std::string model_fingerprint_;
  uint64_t router_id_ = 0;
  int d_model_ = 0;
  bool mixes_numerics_ = false;
  RemoteExpertOptions experts_;
  RemoteAttentionOptions attention_;
  bool remote_attention_ = false;
  const std::unique_ptr<PrefixAffinity> affinity_ = std::make_unique<PrefixAffinity>();
  std::unique_ptr<Directory> directory_;
  std::unique_ptr<Discovery> discovery_;  // null: all addresses are fixed
  std::unique_ptr<ClusterPlanner> planner_;
  std::unique_ptr<DispatchCounters> counters_;
  const std::shared_ptr<TrafficTable> traffic_ = std::make_shared<TrafficTable>();
  std::unique_ptr<DirectoryView> view_;
  std::unique_ptr<ClusterControl> control_;
};

}  // namespace gatefold
