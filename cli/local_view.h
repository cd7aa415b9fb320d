#pragma once

#include <algorithm>
#include <atomic>
#include <cstdint>
#include <string>
#include <vector>

#include "absl/time/clock.h"
#include "absl/time/time.h"
#include "attention-service/prefix_cache.h"
#include "expert-service/expert_runner.h"
#include "gatefold/base/periodic_task.h"
#include "gatefold/model/model_weights.h"
#include "router-service/gateway/cluster_view.h"
#include "router-service/router_meter.h"

namespace gatefold {

// The share of the last second in which steps were under way, as far as they have ended.
class BusyShare {
 public:
  // The meter outlives it.
  explicit BusyShare(const RouterMeter* meter)
      : meter_(meter), task_(absl::Seconds(1), [this] { Look(); }) {}

  double ratio() const { return ratio_; }

 private:
  void Look() {
    const absl::Time now = absl::Now();
    const absl::Duration busy = meter_->step_time();
    if (now > at_) ratio_ = std::min(1.0, absl::FDivDuration(busy - busy_, now - at_));
    at_ = now;
    busy_ = busy;
  }

  const RouterMeter* const meter_;
  std::atomic<double> ratio_{0};
  absl::Time at_ = absl::Now();  // these two are the task's
  absl::Duration busy_;
  PeriodicTask task_;  // last: it uses the others
};

// A cluster of one.
class LocalView final : public ClusterView {
 public:
  // What is pointed to outlives it. `resident`: null: the runner computes.
  LocalView(std::string model, std::string device, const ModelWeights* weights,
            const PrefixCache* kv, const ExpertRunner* runner, const ResidentExperts* resident,
            const std::atomic<int>* n_sequences, const RouterMeter* meter);

  cluster::v1::GetClusterResponse Snapshot() const override;
  std::vector<cluster::v1::ExpertLoad> ExpertLoads() const override;
  std::vector<std::string> ShardNames() const override { return {"local"}; }
  uint64_t topology_version() const override { return 1; }
  bool mixed_numerics() const override { return false; }

 private:
  uint64_t RowsOf(const ExpertId& id) const;

  const std::string model_;
  const std::string device_;  // for people
  const ModelWeights* const weights_;
  const PrefixCache* const kv_;
  const ExpertRunner* const runner_;
  const ResidentExperts* const resident_;  // null: the runner computes
  const uint64_t numerics_class_;          // of experts, as shards describe themselves
  const std::atomic<int>* const n_sequences_;
  const RouterMeter* const meter_;
  const BusyShare busy_;
};

}  // namespace gatefold
