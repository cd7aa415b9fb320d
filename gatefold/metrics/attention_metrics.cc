#include "gatefold/metrics/attention_metrics.h"

#include <prometheus/counter.h>
#include <prometheus/histogram.h>

#include <utility>

namespace gatefold {

AttentionMetrics::AttentionMetrics(Registry* registry)
    : registry_(registry),
      compute_(registry->AddCounter("gatefold_attention_compute_seconds_total")),
      tokens_(registry->AddCounter("gatefold_attention_tokens_total")),
      queue_(registry->AddHistogram("gatefold_attention_queue_seconds")),
      hits_(registry->AddCounter("gatefold_prefix_cache_tokens_total", {{"result", "hit"}})),
      misses_(registry->AddCounter("gatefold_prefix_cache_tokens_total", {{"result", "miss"}})) {}

void AttentionMetrics::ObserveCall(int n_rows, absl::Duration queue, absl::Duration compute) {
  compute_->Increment(absl::ToDoubleSeconds(compute));
  tokens_->Increment(n_rows);
  queue_->Observe(absl::ToDoubleSeconds(queue));
}

void AttentionMetrics::ObserveLookUp(int n_hit_tokens, int n_miss_tokens) {
  hits_->Increment(n_hit_tokens);
  misses_->Increment(n_miss_tokens);
}

void AttentionMetrics::WatchKvBlocks(int n_blocks, std::function<double()> n_free,
                                     std::function<double()> n_cached) {
  const auto n_used = [n_blocks, n_free, n_cached] { return n_blocks - n_free() - n_cached(); };
  registry_->Watch("gatefold_kv_blocks", {{"state", "free"}}, n_free);
  registry_->Watch("gatefold_kv_blocks", {{"state", "cached"}}, n_cached);
  registry_->Watch("gatefold_kv_blocks", {{"state", "used"}}, n_used);
  registry_->Watch("gatefold_kv_usage_ratio", {},
                   [n_blocks, n_used] { return n_blocks == 0 ? 0 : n_used() / n_blocks; });
}

void AttentionMetrics::WatchDevice(std::function<double()> device_seconds) {
  registry_->Watch("gatefold_attention_device_seconds_total", {}, std::move(device_seconds));
}

void AttentionMetrics::WatchSequences(std::function<double()> n_sequences) {
  registry_->Watch("gatefold_sequences", {}, std::move(n_sequences));
}

}  // namespace gatefold
