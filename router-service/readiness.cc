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

bool HasProspects(const RoutingTable& table) {
  bool any_named = false, any_useful = false;
  for (const auto* entries : {&table.experts, &table.attention}) {
    bool mismatched = false, useful = false;
    for (const WorkerEntry& entry : *entries) {
      if (entry.gone) continue;
      any_named = true;
      mismatched |= entry.state == WorkerEntry::State::kMismatch && !entry.twin;
      useful |= entry.state != WorkerEntry::State::kMismatch &&
                entry.state != WorkerEntry::State::kUnreachable;
    }
    if (mismatched && !useful) return false;
    any_useful |= useful;
  }
  return any_useful || !any_named;
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
  bool ready = false, was_ready = false;
  while (!stopping()) {
    const auto changed = [&](const RoutingTable& table) {
      const bool can_be = was_ready ? HasProspects(table) : IsComplete(table, remote_attention_);
      return can_be != ready;
    };
    // The directory wakes nobody for `stopping_`, so look at it now and then.
    if (was_ready) TellUncovered(*directory_->Table());
    if (!directory_->Await(changed, absl::Now() + absl::Milliseconds(100))) continue;
    ready = !ready;
    was_ready = true;
    health_->SetReady(ready);
    LogEvent(LogLevel::kInfo, ready ? "ready" : "not_ready",
             {{"coverage", directory_->Table()->CoverageRatio()}});
  }
}

void Readiness::TellUncovered(const RoutingTable& table) {
  const absl::Time now = absl::Now();
  // While shards come and go it may change all the time.
  if (now < told_ + absl::Seconds(1)) return;
  const std::string uncovered = table.Uncovered();
  if (uncovered == uncovered_) return;
  uncovered_ = uncovered;
  told_ = now;
  if (uncovered.empty()) {
    LogEvent(LogLevel::kInfo, "experts_covered", {{"coverage", table.CoverageRatio()}});
  } else {
    LogEvent(LogLevel::kWarning, "experts_uncovered",
             {{"coverage", table.CoverageRatio()}, {"experts", uncovered}});
  }
}

}  // namespace gatefold
