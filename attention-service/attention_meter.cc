#include "attention-service/attention_meter.h"

#include <utility>

#include "gatefold/base/status_macros.h"
#include "gatefold/metrics/build_info.h"
#include "gatefold/worker/metrics_host.h"

namespace gatefold {

absl::StatusOr<std::unique_ptr<AttentionMeter>> AttentionMeter::Create(
    const AttentionServiceOptions& options) {
  auto meter = std::make_unique<AttentionMeter>();
  if (options.worker.metrics_port >= 0) {
    GF_ASSIGN_OR_RETURN(meter->server_,
                        MetricsServer::Start(MetricsHost(options.worker.listen),
                                             options.worker.metrics_port, meter->registry_));
  }
  return meter;
}

void AttentionMeter::Watch(AttentionHost* host) {
  const AttentionBackend& backend = host->backend();
  AddBuildInfo(&registry_, kVersion, backend.name(), backend.device());
  const PrefixCache& cache = *host->cache();
  attention_.WatchDevice([&backend] { return backend.device_seconds(); });
  attention_.WatchKvBlocks(
      cache.n_blocks(), [&cache] { return cache.pool()->n_free(); },
      [&cache] { return cache.n_cached(); });
}

void AttentionMeter::WatchSequences(std::function<int()> n_sequences) {
  attention_.WatchSequences(std::move(n_sequences));
}

}  // namespace gatefold
