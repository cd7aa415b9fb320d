#include "expert-service/expert_meter.h"

#include "gatefold/base/status_macros.h"
#include "gatefold/metrics/build_info.h"
#include "gatefold/worker/metrics_host.h"

namespace gatefold {

// One call is computed at a time: it has all threads.
ExpertMeter::ExpertMeter(const ExpertStore& store)
    : experts_(&registry_, store.config().n_layers, 1), rpc_(&registry_) {
  const ExpertBackend& backend = *store.backend();
  AddBuildInfo(&registry_, kVersion, backend.name(), backend.device());
  experts_.WatchDevice([&backend] { return backend.device_seconds(); });
  experts_.WatchLoadedBytes([&store] { return static_cast<double>(store.loaded_bytes()); });
}

absl::StatusOr<std::unique_ptr<ExpertMeter>> ExpertMeter::Create(
    const ExpertStore& store, const ExpertServiceOptions& options) {
  auto meter = std::make_unique<ExpertMeter>(store);
  if (options.worker.metrics_port >= 0) {
    GF_ASSIGN_OR_RETURN(meter->server_,
                        MetricsServer::Start(MetricsHost(options.worker.listen),
                                             options.worker.metrics_port, meter->registry_));
  }
  return meter;
}

void ExpertMeter::OnFixedLoaded(size_t n_experts, uint64_t bytes, absl::Duration time) {
  experts_.SetLoadTime(time);
  experts_.ObserveLoaded(LoadedFromName(LoadedFrom::kCheckpoint), n_experts, bytes);
}

void ExpertMeter::OnLoaded(const LoadedExpert& expert) {
  experts_.ObserveLoaded(LoadedFromName(expert.from), 1, expert.bytes);
}

void ExpertMeter::WatchExperts(const ExpertRunner* runner) {
  experts_.WatchExperts([runner] {
    std::vector<ExpertMetrics::ExpertRows> rows;
    for (const ExpertId& id : runner->store().Held()) {
      rows.push_back({id.layer, id.expert, static_cast<double>(runner->n_rows(id))});
    }
    return rows;
  });
}

void ExpertMeter::OnCall(int layer, int n_rows, absl::Duration queue, absl::Duration compute) {
  if (layer < 0) {
    experts_.ObserveCallRefused();
  } else {
    experts_.ObserveCallDone(layer, n_rows, queue, compute);
  }
}

}  // namespace gatefold
