#include "attention-service/attention_meter.h"

#include <utility>

#include "gatefold/base/status_macros.h"
#include "gatefold/metrics/build_info.h"
#include "gatefold/worker/metrics_host.h"

namespace gatefold {

AttentionMeter::AttentionMeter(const AttentionBackend& backend)
    : attention_(&registry_), rpc_(&registry_) {
  AddBuildInfo(&registry_, kVersion, backend.name(), backend.device());
}

absl::StatusOr<std::unique_ptr<AttentionMeter>> AttentionMeter::Create(
    AttentionHost* host, const AttentionServiceOptions& options) {
  auto meter = std::make_unique<AttentionMeter>(host->backend());
  const PrefixCache& cache = *host->cache();
  meter->attention_.WatchDevice([&backend = host->backend()] { return backend.device_seconds(); });
  meter->attention_.WatchKvBlocks(
      cache.n_blocks(), [&cache] { return cache.pool()->n_free(); },
      [&cache] { return cache.n_cached(); });
  if (options.worker.metrics_port >= 0) {
    GF_ASSIGN_OR_RETURN(meter->server_,
                        MetricsServer::Start(MetricsHost(options.worker.listen),
                                             options.worker.metrics_port, meter->registry_));
  }
  return meter;
}

void AttentionMeter::WatchSequences(std::function<int()> n_sequences) {
  attention_.WatchSequences(std::move(n_sequences));
}

}  // namespace gatefold
