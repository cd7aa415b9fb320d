#pragma once

#include <memory>
#include <string>

#include "absl/status/statusor.h"
#include "gatefold/rpc/server.h"
#include "router-service/dispatch/directory.h"
#include "router-service/dispatch/remote_expert_client.h"
#include "router-service/gateway/gateway_observer.h"
#include "router-service/options.h"
#include "router-service/scheduler/scheduler.h"

namespace gatefold {

// What a router measures, and where it is read: requests, steps by phase, dispatch.
class RouterMeter final : public GatewayObserver, public SchedulerObserver {
 public:
  static absl::StatusOr<std::unique_ptr<RouterMeter>> Create(const RouterOptions& options);

  // Both outlive the meter; for routers with remote experts.
  void Watch(const Directory* directory, const DispatchCounters* counters);

  void OnRequestStarted(RequestKind kind) override;
  void OnRequestEnded(const RequestReport& report) override;
  void OnFirstToken(absl::Duration ttft) override;
  void OnNextToken(absl::Duration itl) override;
  void OnStep(const Step& step, const StepResult& result, absl::Duration total) override;
  void OnStepFailed(const absl::Status& status) override;
  void OnCallDone(const CallRecord& call);

  std::string address() const { return address_; }

 private:
  std::string address_;
};

}  // namespace gatefold
