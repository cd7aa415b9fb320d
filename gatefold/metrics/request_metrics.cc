#include "gatefold/metrics/request_metrics.h"

#include <prometheus/counter.h>
#include <prometheus/histogram.h>

#include <cmath>
#include <string>
#include <utility>

#include "absl/strings/ascii.h"
#include "gatefold/base/errors.h"

namespace gatefold {
namespace {

RequestMetrics::Latencies Read(const prometheus::Histogram& histogram) {
  const prometheus::ClientMetric metric = histogram.Collect();
  RequestMetrics::Latencies latencies;
  latencies.sum = metric.histogram.sample_sum;
  uint64_t below = 0;
  for (const prometheus::ClientMetric::Bucket& bucket : metric.histogram.bucket) {
    if (std::isfinite(bucket.upper_bound)) latencies.upper_bounds.push_back(bucket.upper_bound);
    latencies.counts.push_back(bucket.cumulative_count - below);
    below = bucket.cumulative_count;
  }
  return latencies;
}

// What is refused by a limit of the caller's own says nothing of how the cluster does.
std::string OutcomeOf(const absl::Status& status) {
  if (ReasonOf(status) == kRateLimited) return "rate_limited";
  return absl::AsciiStrToLower(absl::StatusCodeToString(status.code()));
}

}  // namespace

RequestMetrics::RequestMetrics(Registry* registry)
    : registry_(registry),
      ttft_(registry->AddHistogram("gatefold_request_ttft_seconds")),
      itl_(registry->AddHistogram("gatefold_request_itl_seconds")),
      e2e_(registry->AddHistogram("gatefold_request_e2e_seconds")),
      queue_(registry->AddHistogram("gatefold_request_queue_seconds")),
      prompt_tokens_(registry->AddHistogram("gatefold_request_prompt_tokens")),
      generation_tokens_(registry->AddHistogram("gatefold_request_generation_tokens")),
      truncated_tokens_(registry->AddCounter("gatefold_request_truncated_tokens_total")),
      mixed_numerics_(registry->AddCounter("gatefold_requests_mixed_numerics_total")) {
  // There from the start, so that a rate over them is right when the first one comes.
  for (const char* outcome : {"ok", "resource_exhausted", "unavailable"}) Outcome(outcome);
}

void RequestMetrics::WatchRunning(std::function<double()> n_running) {
  registry_->Watch("gatefold_requests_running", {}, std::move(n_running));
}

void RequestMetrics::WatchWaiting(std::function<double()> n_waiting) {
  registry_->Watch("gatefold_requests_waiting", {}, std::move(n_waiting));
}

void RequestMetrics::WatchWaitingForExpert(std::function<double()> n_waiting) {
  registry_->Watch("gatefold_requests_waiting_for_expert", {}, std::move(n_waiting));
}

void RequestMetrics::ObserveFirstToken(absl::Duration ttft) {
  ttft_->Observe(absl::ToDoubleSeconds(ttft));
}

void RequestMetrics::ObserveNextToken(absl::Duration itl) {
  itl_->Observe(absl::ToDoubleSeconds(itl));
}

RequestMetrics::Latencies RequestMetrics::FirstTokens() const { return Read(*ttft_); }
RequestMetrics::Latencies RequestMetrics::NextTokens() const { return Read(*itl_); }

void RequestMetrics::ObserveEnd(const Request& request) {
  Outcome(OutcomeOf(request.status))->Increment();
  if (request.queue == absl::InfiniteDuration()) return;
  queue_->Observe(absl::ToDoubleSeconds(request.queue));
  e2e_->Observe(absl::ToDoubleSeconds(request.end_to_end));
  prompt_tokens_->Observe(request.n_prompt_tokens);
  generation_tokens_->Observe(request.n_output_tokens);
  truncated_tokens_->Increment(request.n_truncated_tokens);
  if (request.mixed_numerics) mixed_numerics_->Increment();
}

prometheus::Counter* RequestMetrics::Outcome(const std::string& outcome) {
  absl::MutexLock lock(&mu_);
  prometheus::Counter*& counter = outcomes_[outcome];
  if (counter == nullptr) {
    counter = registry_->AddCounter("gatefold_requests_total", {{"outcome", outcome}});
  }
  return counter;
}

}  // namespace gatefold
