#pragma once

#include <functional>
#include <memory>
#include <string>

#include "absl/status/statusor.h"
#include "attention-service/attention_service.h"
#include "attention-service/options.h"
#include "gatefold/metrics/attention_metrics.h"
#include "gatefold/metrics/metrics_server.h"
#include "gatefold/metrics/registry.h"
#include "gatefold/metrics/rpc_metrics.h"
#include "gatefold/metrics/tls_metrics.h"
#include "gatefold/rpc/server.h"

namespace gatefold {

// What an attention-service measures, and where it is read.
class AttentionMeter final : public AttentionObserver {
 public:
  static absl::StatusOr<std::unique_ptr<AttentionMeter>> Create(
      const AttentionServiceOptions& options);
  AttentionMeter() : attention_(&registry_), rpc_(&registry_) {}

  // Once there is one; it outlives the meter.
  void Watch(AttentionHost* host);
  void WatchSequences(std::function<int()> n_sequences);
  // See tls_metrics.h.
  void WatchCertificate(absl::string_view use, std::function<absl::Time()> not_after) {
    gatefold::WatchCertificate(&registry_, use, std::move(not_after));
  }
  void StopWatching() { registry_.StopWatching(); }
  void OnCall(int n_rows, absl::Duration queue, absl::Duration compute) override {
    attention_.ObserveCall(n_rows, queue, compute);
  }
  void OnLookUp(int n_hit_tokens, int n_miss_tokens) override {
    attention_.ObserveLookUp(n_hit_tokens, n_miss_tokens);
  }
  void OnCallDone(const CallRecord& call) {
    rpc_.ObserveServerCall(call.method, call.code, call.duration);
  }

  // host:port of /metrics; empty if it is not served.
  std::string address() const { return server_ == nullptr ? "" : server_->address(); }

 private:
  Registry registry_;
  AttentionMetrics attention_;
  RpcMetrics rpc_;
  std::unique_ptr<MetricsServer> server_;
};

}  // namespace gatefold
