#pragma once

#include <atomic>
#include <cstdint>
#include <functional>
#include <memory>
#include <string>
#include <vector>

#include "absl/status/statusor.h"
#include "absl/strings/string_view.h"
#include "absl/time/time.h"
#include "gatefold/kernels/isa.h"
#include "gatefold/metrics/dispatch_metrics.h"
#include "gatefold/metrics/metrics_server.h"
#include "gatefold/metrics/registry.h"
#include "gatefold/metrics/request_metrics.h"
#include "gatefold/metrics/rpc_metrics.h"
#include "gatefold/metrics/step_metrics.h"
#include "gatefold/metrics/tls_metrics.h"
#include "gatefold/rpc/server.h"
#include "gatefold/rpc/traffic.h"
#include "router-service/dispatch/directory.h"
#include "router-service/dispatch/remote_expert_client.h"
#include "router-service/dispatch/shard_balance.h"
#include "router-service/gateway/gateway_observer.h"
#include "router-service/gateway/serving_stats.h"
#include "router-service/options.h"
#include "router-service/planner/cluster_planner.h"
#include "router-service/scheduler/scheduler.h"

namespace gatefold {

// What a router measures, and where it is read: requests, steps by phase, dispatch.
class RouterMeter final : public GatewayObserver, public SchedulerObserver, public ServingStats {
 public:
  // Serves /metrics unless options.worker.metrics_port is -1.
  // backend, device: of what computes in this process; see AddBuildInfo.
  static absl::StatusOr<std::unique_ptr<RouterMeter>> Create(
      const RouterOptions& options, absl::string_view backend = "cpu",
      absl::string_view device = kernels::Kernels().isa);
  RouterMeter(absl::string_view backend, absl::string_view device);
  ~RouterMeter() { StopWatching(); }

  // What is watched is read at each scrape until StopWatching, or the end of the meter. These two
  // also at steps, whose experts are called by them.
  void Watch(const Directory* directory, const DispatchCounters* counters);
  void Watch(const ClusterPlanner* planner);
  void Watch(const GenerationService* scheduler);
  void Watch(TrafficTable* traffic);
  // See tls_metrics.h.
  void WatchCertificate(absl::string_view use, std::function<absl::Time()> not_after) {
    gatefold::WatchCertificate(&registry_, use, std::move(not_after));
  }
  void StopWatching();

  // Of the scheduler that is watched, which must live.
  cluster::v1::GetServingStatsResponse Stats() const override;

  void OnRequestStarted(RequestKind /*kind*/) override {}
  void OnRequestEnded(const RequestReport& report) override;
  void OnFirstToken(absl::Duration ttft) override { requests_.ObserveFirstToken(ttft); }
  void OnNextToken(absl::Duration itl) override { requests_.ObserveNextToken(itl); }
  void OnStep(const Step& step, const StepResult& result, absl::Duration total) override;
  void OnStepFailed(const absl::Status& /*status*/) override { steps_.ObserveFailed(); }
  void OnRecompute(RecomputeReason reason) override {
    steps_.ObserveRecomputed(reason == RecomputeReason::kPreempted ? "preempted" : "moved");
  }
  void OnCallDone(const CallRecord& call) {
    rpc_.ObserveServerCall(call.method, call.code, call.duration);
  }

  // Of the steps that were run, over all lanes, each counted at its end. Threads: safe.
  absl::Duration step_time() const { return absl::Nanoseconds(step_nanos_.load()); }

  // host:port of /metrics; empty if it is not served.
  std::string address() const { return server_ == nullptr ? "" : server_->address(); }

 private:
  Registry registry_;
  RequestMetrics requests_;
  StepMetrics steps_;
  DispatchMetrics dispatch_;
  RpcMetrics rpc_;
  std::function<std::vector<ShardBalance::Shard>()> shards_;  // empty: there are none
  ShardBalance balance_;
  const GenerationService* scheduler_ = nullptr;
  std::atomic<int64_t> step_nanos_{0};
  std::unique_ptr<MetricsServer> server_;
  TrafficTable* traffic_ = nullptr;  // whose attempts are observed
};

}  // namespace gatefold
