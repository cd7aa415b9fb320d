#pragma once

#include <string>
#include <vector>

#include "gatefold/model/model_config.h"
#include "gatefold/worker/worker.h"
#include "router-service/dispatch/directory.h"
#include "router-service/dispatch/remote_expert_client.h"
#include "router-service/gateway/cluster_view.h"

namespace gatefold {

// The cluster as the router's directory knows it.
class DirectoryView final : public ClusterView {
 public:
  // Directory and counters outlive the view.
  DirectoryView(std::string model_name, std::string model_fingerprint, const ModelConfig& config,
                const Directory* directory, const DispatchCounters* counters)
      : model_name_(std::move(model_name)),
        model_fingerprint_(std::move(model_fingerprint)),
        config_(config),
        directory_(directory),
        counters_(counters) {}

  cluster::v1::GetClusterResponse Snapshot() const override;
  std::vector<cluster::v1::ExpertLoad> ExpertLoads() const override;
  std::vector<std::string> ShardNames() const override;
  uint64_t topology_version() const override { return directory_->Table()->version; }
  bool mixed_numerics() const override;

 private:
  const std::string model_name_;
  const std::string model_fingerprint_;
  const ModelConfig config_;
  const Directory* const directory_;
  const DispatchCounters* const counters_;
};

}  // namespace gatefold
