#include "router-service/router_meter.h"

#include <algorithm>
#include <utility>

#include "absl/strings/ascii.h"
#include "absl/strings/strip.h"
#include "gatefold/base/status_macros.h"
#include "gatefold/kernels/isa.h"
#include "gatefold/metrics/build_info.h"
#include "gatefold/worker/metrics_host.h"

namespace gatefold {
namespace {

// Rows served by the busiest shard over the mean of the shards.
double Imbalance(const DispatchCounters& counters) {
  uint64_t most = 0, total = 0;
  for (const std::atomic<uint64_t>& rows : counters.rows_served) {
    most = std::max<uint64_t>(most, rows);
    total += rows;
  }
  if (total == 0) return 1;
  return static_cast<double>(most) * static_cast<double>(counters.rows_served.size()) /
         static_cast<double>(total);
}

// "REFUSAL_REASON_BUSY" to "busy".
std::string ReasonLabel(int reason) {
  if (reason == internal::v1::REFUSAL_REASON_UNSPECIFIED) return "unreachable";
  const std::string& name =
      internal::v1::RefusalReason_Name(static_cast<internal::v1::RefusalReason>(reason));
  return absl::AsciiStrToLower(absl::StripPrefix(name, "REFUSAL_REASON_"));
}

}  // namespace

RouterMeter::RouterMeter() : requests_(&registry_), steps_(&registry_), rpc_(&registry_) {
  AddBuildInfo(&registry_, kVersion, "cpu", kernels::Kernels().isa);
}

absl::StatusOr<std::unique_ptr<RouterMeter>> RouterMeter::Create(const RouterOptions& options) {
  auto meter = std::make_unique<RouterMeter>();
  if (options.worker.metrics_port >= 0) {
    GF_ASSIGN_OR_RETURN(meter->server_,
                        MetricsServer::Start(MetricsHost(options.worker.listen),
                                             options.worker.metrics_port, meter->registry_));
  }
  return meter;
}

void RouterMeter::Watch(const Directory* directory, const DispatchCounters* counters) {
  registry_.Watch("gatefold_router_coverage_ratio", {},
                  [directory] { return directory->Table()->CoverageRatio(); });
  registry_.Watch("gatefold_router_placement_epoch", {}, [directory] {
    return static_cast<double>(directory->Table()->version);
  });
  registry_.Watch("gatefold_router_imbalance_ratio", {},
                  [counters] { return Imbalance(*counters); });
  registry_.Watch("gatefold_router_expert_queue_tokens", {},
                  [counters] { return static_cast<double>(counters->queue_rows); });
  for (size_t reason = 0; reason < counters->retries.size(); ++reason) {
    registry_.Watch("gatefold_router_retries_total",
                    {{"reason", ReasonLabel(static_cast<int>(reason))}}, [counters, reason] {
                      return static_cast<double>(counters->retries[reason]);
                    });
  }
}

void RouterMeter::Watch(const GenerationService* scheduler) {
  requests_.WatchRunning([scheduler] { return scheduler->load().n_running; });
  requests_.WatchWaiting([scheduler] { return scheduler->load().n_waiting; });
}

void RouterMeter::OnRequestEnded(const RequestReport& report) {
  RequestMetrics::Request request;
  request.status = report.status;
  request.n_prompt_tokens = report.n_prompt_tokens;
  request.n_output_tokens = report.n_output_tokens;
  request.queue = report.queue;
  request.end_to_end = report.end_to_end;
  requests_.ObserveEnd(request);
}

void RouterMeter::OnStep(const Step& step, const StepResult& result, absl::Duration /*total*/) {
  steps_.ObserveRows(step.n_rows());
  for (int phase = 0; phase < kStepPhases; ++phase) {
    steps_.Observe(StepPhaseName(static_cast<StepPhase>(phase)), result.phase_time[phase]);
  }
}

}  // namespace gatefold
