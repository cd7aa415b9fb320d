#include "router-service/router_meter.h"

#include <algorithm>
#include <utility>

#include "absl/strings/ascii.h"
#include "absl/strings/strip.h"
#include "absl/time/clock.h"
#include "gatefold/base/status_macros.h"
#include "gatefold/metrics/build_info.h"
#include "gatefold/worker/metrics_host.h"

namespace gatefold {
namespace {

// "REFUSAL_REASON_BUSY" to "busy".
std::string ReasonLabel(int reason) {
  if (reason == internal::v1::REFUSAL_REASON_UNSPECIFIED) return "unreachable";
  const std::string& name =
      internal::v1::RefusalReason_Name(static_cast<internal::v1::RefusalReason>(reason));
  return absl::AsciiStrToLower(absl::StripPrefix(name, "REFUSAL_REASON_"));
}

}  // namespace

RouterMeter::RouterMeter(absl::string_view backend, absl::string_view device)
    : requests_(&registry_), steps_(&registry_), dispatch_(&registry_), rpc_(&registry_) {
  AddBuildInfo(&registry_, kVersion, backend, device);
}

absl::StatusOr<std::unique_ptr<RouterMeter>> RouterMeter::Create(const RouterOptions& options,
                                                                 absl::string_view backend,
                                                                 absl::string_view device) {
  auto meter = std::make_unique<RouterMeter>(backend, device);
  if (options.worker.metrics_port >= 0) {
    GF_ASSIGN_OR_RETURN(meter->server_,
                        MetricsServer::Start(MetricsHost(options.worker.listen),
                                             options.worker.metrics_port, meter->registry_));
  }
  return meter;
}

void RouterMeter::Watch(const Directory* directory, const DispatchCounters* counters) {
  dispatch_.WatchQueue([counters] { return static_cast<double>(counters->queue_rows); });
  dispatch_.WatchCoverage([directory] { return directory->Table()->CoverageRatio(); });
  dispatch_.WatchPlacementEpoch(
      [directory] { return static_cast<double>(directory->Table()->version); });
  for (size_t reason = 0; reason < counters->retries.size(); ++reason) {
    dispatch_.WatchRetries(ReasonLabel(static_cast<int>(reason)), [counters, reason] {
      return static_cast<double>(counters->retries[reason]);
    });
  }
  using Counts = std::vector<DispatchCounters::Count>;
  const auto by_shard = [directory](const Counts& counts) {
    return [directory, &counts] {
      DispatchMetrics::ShardRows rows;
      const std::shared_ptr<const RoutingTable> table = directory->Table();
      for (size_t i = 0; i < table->experts.size(); ++i) {
        rows.emplace_back(table->experts[i].address, static_cast<double>(counts[i]));
      }
      return rows;
    };
  };
  dispatch_.WatchShards(by_shard(counters->rows_served));
  shards_ = [directory, counters] { return ShardsOf(*directory->Table(), counters->rows_served); };
  dispatch_.WatchImbalance([this] { return balance_.Ratio(absl::Now(), shards_()); });
  dispatch_.WatchTraffic({by_shard(counters->rows_sent), by_shard(counters->messages),
                          by_shard(counters->bytes_sent), by_shard(counters->bytes_received)});
  const auto value = [](const DispatchCounters::Count& count) {
    return [&count] { return static_cast<double>(count); };
  };
  dispatch_.WatchRetries("silent", value(counters->retries_silent));
  dispatch_.WatchHedges(true, value(counters->hedges_won));
  dispatch_.WatchHedges(false, value(counters->hedges_lost));
  dispatch_.WatchVerified("equal", value(counters->verified_equal));
  dispatch_.WatchVerified("different", value(counters->verified_different));
  dispatch_.WatchVerified("no_replica", value(counters->unverified_no_replica));
  dispatch_.WatchVerified("no_answer", value(counters->unverified_no_answer));
  dispatch_.WatchVerified("busy", value(counters->unverified_busy));
  dispatch_.WatchDegraded(value(counters->rows_degraded));
}

void RouterMeter::Watch(const ClusterPlanner* planner) {
  dispatch_.WatchMoves([planner] { return static_cast<double>(planner->status().n_moves); });
}

void RouterMeter::Watch(const GenerationService* scheduler) {
  scheduler_ = scheduler;
  requests_.WatchRunning([scheduler] { return scheduler->load().n_running; });
  requests_.WatchWaiting([scheduler] { return scheduler->load().n_waiting; });
  requests_.WatchWaitingForExpert([scheduler] { return scheduler->load().n_waiting_for_expert; });
}

cluster::v1::GetServingStatsResponse RouterMeter::Stats() const {
  cluster::v1::GetServingStatsResponse stats;
  if (scheduler_ != nullptr) {
    const GenerationService::Load load = scheduler_->load();
    stats.set_n_running(load.n_running);
    stats.set_n_waiting(load.n_waiting);
    stats.set_n_waiting_for_expert(load.n_waiting_for_expert);
  }
  for (const auto& [latencies, histogram] :
       {std::pair(requests_.FirstTokens(), stats.mutable_ttft()),
        std::pair(requests_.NextTokens(), stats.mutable_itl())}) {
    histogram->mutable_upper_bounds_seconds()->Assign(latencies.upper_bounds.begin(),
                                                      latencies.upper_bounds.end());
    histogram->mutable_counts()->Assign(latencies.counts.begin(), latencies.counts.end());
    histogram->set_sum_seconds(latencies.sum);
  }
  return stats;
}

void RouterMeter::Watch(TrafficTable* traffic) {
  traffic_ = traffic;
  traffic->ObserveAttempts(
      [this](absl::string_view method, absl::StatusCode code, absl::Duration time) {
        rpc_.ObserveClientAttempt(method, code, time);
      });
  dispatch_.WatchHops([traffic] {
    std::vector<DispatchMetrics::PeerHops> hops;
    for (const auto& [peer, counted] : traffic->All()) {
      hops.push_back({peer, static_cast<double>(counted->n_answers),
                      1e-9 * static_cast<double>(counted->answer_nanos),
                      static_cast<double>(counted->bytes_sent),
                      static_cast<double>(counted->bytes_received)});
    }
    return hops;
  });
}

void RouterMeter::StopWatching() {
  registry_.StopWatching();
  if (traffic_ != nullptr) traffic_->ObserveAttempts(nullptr);
  traffic_ = nullptr;
}

void RouterMeter::OnRequestEnded(const RequestReport& report) {
  RequestMetrics::Request request;
  request.status = report.status;
  request.n_prompt_tokens = report.n_prompt_tokens;
  request.n_output_tokens = report.n_output_tokens;
  request.n_truncated_tokens = report.n_truncated_tokens;
  request.mixed_numerics = report.mixed_numerics;
  request.queue = report.queue;
  request.end_to_end = report.end_to_end;
  requests_.ObserveEnd(request);
}

void RouterMeter::OnStep(const Step& step, const StepResult& result, absl::Duration total) {
  step_nanos_ += absl::ToInt64Nanoseconds(total);
  if (const absl::Time now = absl::Now(); shards_ && balance_.Due(now)) {
    balance_.Note(now, shards_());
  }
  steps_.ObserveRows(step.n_rows());
  for (int phase = 0; phase < kStepPhases; ++phase) {
    steps_.Observe(StepPhaseName(static_cast<StepPhase>(phase)), result.phase_time[phase]);
  }
}

}  // namespace gatefold
