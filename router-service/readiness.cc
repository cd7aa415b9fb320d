#include "router-service/readiness.h"

#include <algorithm>

#include "absl/time/clock.h"
#include "gatefold/base/log.h"

namespace gatefold {

bool IsComplete(const RoutingTable& table, bool remote_attention) {
  const auto ready = [](const WorkerEntry& entry) {
    return entry.state == WorkerEntry::State::kReady;
  };
  return table.CoverageRatio() == 1 &&
         (!remote_attention || std::any_of(table.attention.begin(), table.attention.end(), ready));
}

Readiness::Readiness(const Directory* directory, bool remote_attention, HealthListener* health)
    : directory_(directory),
      remote_attention_(remote_attention),
      health_(health),
      thread_([this] { Run(); }) {}

Readiness::~Readiness() {
  {
    absl::MutexLock lock(&mu_);
    stopping_ = true;
  }
  thread_.join();
  health_->SetReady(false);
}

bool Readiness::stopping() const {
  absl::MutexLock lock(&mu_);
  return stopping_;
}

void Readiness::Run() {
  bool ready = false;
  while (!stopping()) {
    const auto changed = [this, ready](const RoutingTable& table) {
      return IsComplete(table, remote_attention_) != ready;
    };
    // The directory wakes nobody for `stopping_`, so look at it now and then.
    if (!directory_->Await(changed, absl::Now() + absl::Milliseconds(100))) continue;
    ready = !ready;
    health_->SetReady(ready);
    LogEvent(LogLevel::kInfo, ready ? "ready" : "not_ready",
             {{"coverage", directory_->Table()->CoverageRatio()}});
  }
}

}  // namespace gatefold
