#pragma once

#include <atomic>
#include <memory>
#include <string>

#include "absl/status/statusor.h"
#include "absl/time/clock.h"
#include "absl/time/time.h"
#include "expert-service/expert_service.h"
#include "expert-service/options.h"
#include "gatefold/metrics/expert_metrics.h"
#include "gatefold/metrics/metrics_server.h"
#include "gatefold/metrics/registry.h"
#include "gatefold/metrics/rpc_metrics.h"
#include "gatefold/metrics/tls_metrics.h"
#include "gatefold/rpc/server.h"

namespace gatefold {

// What a shard measures, and where it is read.
class ExpertMeter final : public ExpertObserver, public LoadObserver {
 public:
  // `store` outlives the meter.
  static absl::StatusOr<std::unique_ptr<ExpertMeter>> Create(const ExpertStore& store,
                                                             const ExpertServiceOptions& options);
  explicit ExpertMeter(const ExpertStore& store);

  // Rows by expert, read at each scrape. The runner outlives StopWatching.
  void WatchExperts(const ExpertRunner* runner);
  // Those a shard is started with.
  void OnFixedLoaded(size_t n_experts, uint64_t bytes, absl::Duration time);
  // Those a planner assigned last.
  void OnComplete(absl::Duration time) { experts_.SetLoadTime(time); }
  void OnLoaded(const LoadedExpert& expert) override;
  void OnLoadFailed(absl::string_view reason) override { experts_.ObserveLoadFailed(reason); }
  // To another shard, which may need it before this one may end.
  void OnPieceSent() { last_call_nanos_ = absl::GetCurrentTimeNanos(); }
  void OnCallStarted() override {
    last_call_nanos_ = absl::GetCurrentTimeNanos();
    experts_.ObserveCallStarted();
  }
  void OnCall(int layer, int n_rows, absl::Duration queue, absl::Duration compute) override;
  void OnCallDone(const CallRecord& call) {
    rpc_.ObserveServerCall(call.method, call.code, call.duration);
  }
  // See tls_metrics.h.
  void WatchCertificate(absl::string_view use, std::function<absl::Time()> not_after) {
    gatefold::WatchCertificate(&registry_, use, std::move(not_after));
  }
  void StopWatching() { registry_.StopWatching(); }

  // When a router last called, or another shard took a piece; the Unix epoch: never.
  absl::Time last_call() const { return absl::FromUnixNanos(last_call_nanos_); }
  // host:port of /metrics; empty if it is not served.
  std::string address() const { return server_ == nullptr ? "" : server_->address(); }

 private:
  Registry registry_;
  ExpertMetrics experts_;
  RpcMetrics rpc_;
  std::atomic<int64_t> last_call_nanos_{0};
  std::unique_ptr<MetricsServer> server_;
};

}  // namespace gatefold
