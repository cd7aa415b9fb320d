#pragma once

#include <atomic>
#include <memory>
#include <string>

#include "absl/status/statusor.h"
#include "absl/time/time.h"
#include "expert-service/expert_service.h"
#include "expert-service/options.h"
#include "gatefold/rpc/server.h"

namespace gatefold {

// What a shard measures, and where it is read.
class ExpertMeter final : public ExpertObserver {
 public:
  static absl::StatusOr<std::unique_ptr<ExpertMeter>> Create(const ExpertStore& store,
                                                             const ExpertServiceOptions& options);

  void OnLoaded(absl::Duration time);
  void OnCallStarted() override;
  void OnCall(int layer, int n_rows, absl::Duration queue, absl::Duration compute) override;
  void OnCallDone(const CallRecord& call);

  // When a router last called; InfinitePast: never.
  absl::Time last_call() const { return absl::FromUnixNanos(last_call_nanos_); }
  std::string address() const { return address_; }

 private:
  std::string address_;
  std::atomic<int64_t> last_call_nanos_{0};
};

}  // namespace gatefold
