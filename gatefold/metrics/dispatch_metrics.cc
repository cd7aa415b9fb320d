#include "gatefold/metrics/dispatch_metrics.h"

#include <utility>

namespace gatefold {

void DispatchMetrics::WatchQueue(std::function<double()> n_queued) {
  registry_->Watch("gatefold_router_expert_queue_tokens", {}, std::move(n_queued));
}

void DispatchMetrics::WatchRetries(absl::string_view reason, std::function<double()> n_retries) {
  registry_->Watch("gatefold_router_retries_total", {{"reason", std::string(reason)}},
                   std::move(n_retries));
}

void DispatchMetrics::WatchHedges(bool won, std::function<double()> n_hedges) {
  registry_->Watch("gatefold_router_hedges_total", {{"won", won ? "true" : "false"}},
                   std::move(n_hedges));
}

void DispatchMetrics::WatchVerified(absl::string_view result, std::function<double()> n_rows) {
  registry_->Watch("gatefold_router_verified_rows_total", {{"result", std::string(result)}},
                   std::move(n_rows));
}

void DispatchMetrics::WatchDegraded(std::function<double()> n_rows) {
  registry_->Watch("gatefold_router_degraded_rows_total", {}, std::move(n_rows));
}

void DispatchMetrics::WatchCoverage(std::function<double()> coverage_ratio) {
  registry_->Watch("gatefold_router_coverage_ratio", {}, std::move(coverage_ratio));
}

void DispatchMetrics::WatchMoves(std::function<double()> n_moves) {
  registry_->Watch("gatefold_router_placement_moves_total", {}, std::move(n_moves));
}

void DispatchMetrics::WatchPlacementEpoch(std::function<double()> epoch) {
  registry_->Watch("gatefold_router_placement_epoch", {}, std::move(epoch));
}

void DispatchMetrics::WatchTraffic(const ShardTraffic& traffic) {
  registry_->WatchEach("gatefold_router_shard_rows_sent_total", traffic.rows_sent);
  registry_->WatchEach("gatefold_router_shard_calls_total", traffic.calls);
  registry_->WatchEach("gatefold_router_shard_sent_bytes_total", traffic.sent_bytes);
  registry_->WatchEach("gatefold_router_shard_received_bytes_total", traffic.received_bytes);
}

void DispatchMetrics::WatchHops(std::function<std::vector<PeerHops>()> hops) {
  using Series = std::vector<std::pair<MetricLabels, double>>;
  registry_->WatchSeries("gatefold_router_hops_total", [hops] {
    Series series;
    for (const PeerHops& to : hops()) series.push_back({{{"peer", to.peer}}, to.n_hops});
    return series;
  });
  registry_->WatchSeries("gatefold_router_hop_seconds_total", [hops] {
    Series series;
    for (const PeerHops& to : hops()) series.push_back({{{"peer", to.peer}}, to.seconds});
    return series;
  });
  registry_->WatchSeries("gatefold_router_hop_bytes_total", [hops = std::move(hops)] {
    Series series;
    for (const PeerHops& to : hops()) {
      series.push_back({{{"peer", to.peer}, {"direction", "sent"}}, to.bytes_sent});
      series.push_back({{{"peer", to.peer}, {"direction", "received"}}, to.bytes_received});
    }
    return series;
  });
}

void DispatchMetrics::WatchShards(std::function<ShardRows()> rows) {
  registry_->WatchEach("gatefold_router_shard_rows_total", std::move(rows));
}

void DispatchMetrics::WatchImbalance(std::function<double()> ratio) {
  registry_->Watch("gatefold_router_imbalance_ratio", {}, std::move(ratio));
}

}  // namespace gatefold
