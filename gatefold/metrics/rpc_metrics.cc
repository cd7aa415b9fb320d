#include "gatefold/metrics/rpc_metrics.h"

#include <prometheus/histogram.h>

#include "absl/strings/strip.h"

namespace gatefold {

RpcMetrics::RpcMetrics(Registry* registry) : registry_(registry) {}

void RpcMetrics::ObserveServerCall(absl::string_view method, absl::StatusCode code,
                                   absl::Duration time) {
  absl::MutexLock lock(&mu_);
  Find(&server_, "grpc_server_call_duration_seconds", method, code)
      ->Observe(absl::ToDoubleSeconds(time));
}

void RpcMetrics::ObserveClientAttempt(absl::string_view method, absl::StatusCode code,
                                      absl::Duration time) {
  absl::MutexLock lock(&mu_);
  Find(&client_, "grpc_client_attempt_duration_seconds", method, code)
      ->Observe(absl::ToDoubleSeconds(time));
}

prometheus::Histogram* RpcMetrics::Find(Series* series, absl::string_view name,
                                        absl::string_view method, absl::StatusCode code) {
  // The proposal writes methods without the leading slash of the path.
  const std::string method_name(absl::StripPrefix(method, "/"));
  prometheus::Histogram*& histogram = (*series)[{method_name, code}];
  if (histogram == nullptr) {
    histogram = registry_->AddHistogram(
        name, {{"grpc_method", method_name}, {"grpc_status", StatusCodeToString(code)}});
  }
  return histogram;
}

}  // namespace gatefold
