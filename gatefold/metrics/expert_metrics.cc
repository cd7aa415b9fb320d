#include "gatefold/metrics/expert_metrics.h"

#include <prometheus/counter.h>
#include <prometheus/histogram.h>

#include <utility>

#include "absl/strings/str_cat.h"
#include "gatefold/base/check.h"

namespace gatefold {

ExpertMetrics::ExpertMetrics(Registry* registry, int n_layers, int n_lanes)
    : registry_(registry),
      state_(std::make_shared<State>()),
      compute_(registry->AddCounter("gatefold_expert_compute_seconds_total")),
      queue_(registry->AddHistogram("gatefold_expert_queue_seconds")) {
  for (int layer = 0; layer < n_layers; ++layer) {
    tokens_.push_back(
        registry->AddCounter("gatefold_expert_tokens_total", {{"layer", absl::StrCat(layer)}}));
  }
  // All series from the start: whoever looks at a rate must see them begin.
  for (const char* source : {"checkpoint", "shard"}) ObserveLoaded(source, 0, 0);
  for (const char* reason :
       {"unavailable", "busy", "timeout", "refused", "malformed", "digest", "no_holder"}) {
    registry->AddCounter("gatefold_expert_load_failures_total", {{"reason", reason}});
  }
  registry->Watch("gatefold_expert_lanes", {}, [n_lanes] { return n_lanes; });
  registry->Watch("gatefold_expert_inflight", {},
                  [state = state_] { return static_cast<double>(state->n_inflight); });
  registry->Watch("gatefold_expert_load_seconds", {},
                  [state = state_] { return state->load_seconds.load(); });
}

void ExpertMetrics::ObserveCallDone(int layer, int n_rows, absl::Duration queue,
                                    absl::Duration compute) {
  GF_CHECK(layer >= 0 && layer < tokens_.size());
  --state_->n_inflight;
  compute_->Increment(absl::ToDoubleSeconds(compute));
  queue_->Observe(absl::ToDoubleSeconds(queue));
  tokens_[layer]->Increment(n_rows);
}

void ExpertMetrics::ObserveLoaded(absl::string_view source, size_t n_experts, uint64_t bytes) {
  const MetricLabels labels = {{"source", std::string(source)}};
  registry_->AddCounter("gatefold_expert_loads_total", labels)
      ->Increment(static_cast<double>(n_experts));
  registry_->AddCounter("gatefold_expert_load_bytes_total", labels)
      ->Increment(static_cast<double>(bytes));
}

void ExpertMetrics::ObserveLoadFailed(absl::string_view reason) {
  registry_->AddCounter("gatefold_expert_load_failures_total", {{"reason", std::string(reason)}})
      ->Increment();
}

void ExpertMetrics::WatchExperts(std::function<std::vector<ExpertRows>()> rows) {
  registry_->WatchSeries("gatefold_expert_rows_total", [rows = std::move(rows)] {
    std::vector<std::pair<MetricLabels, double>> series;
    for (const ExpertRows& item : rows()) {
      MetricLabels labels = {{"layer", absl::StrCat(item.layer)},
                             {"expert", absl::StrCat(item.expert)}};
      series.emplace_back(std::move(labels), item.n_rows);
    }
    return series;
  });
}

void ExpertMetrics::WatchDevice(std::function<double()> device_seconds) {
  registry_->Watch("gatefold_expert_device_seconds_total", {}, std::move(device_seconds));
}

void ExpertMetrics::WatchLoadedBytes(std::function<double()> loaded_bytes) {
  registry_->Watch("gatefold_expert_loaded_bytes", {}, std::move(loaded_bytes));
}

}  // namespace gatefold
