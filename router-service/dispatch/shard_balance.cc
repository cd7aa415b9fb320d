#include "router-service/dispatch/shard_balance.h"

#include <algorithm>

namespace gatefold {
namespace {

constexpr absl::Duration kWindow = absl::Minutes(1);
constexpr absl::Duration kInterval = absl::Seconds(5);  // between samples
constexpr absl::Duration kLeast = absl::Seconds(1);     // what a rate is told from

}  // namespace

bool ShardBalance::Due(absl::Time now) const {
  absl::MutexLock lock(&mu_);
  return samples_.empty() || now >= samples_.back().at + kInterval;
}

void ShardBalance::Note(absl::Time now, const std::vector<Shard>& shards) {
  absl::MutexLock lock(&mu_);
  NoteLocked(now, shards);
}

void ShardBalance::NoteLocked(absl::Time now, const std::vector<Shard>& shards) {
  // Lanes that found it due at the same time come one after another.
  if (!samples_.empty() && now < samples_.back().at + kInterval) return;
  samples_.push_back({now, shards});
  while (samples_.size() > 1 && samples_[1].at <= now - kWindow) samples_.pop_front();
}

const ShardBalance::Sample* ShardBalance::Since(size_t index, const Shard& shard) const {
  const Sample* since = nullptr;
  for (auto sample = samples_.rbegin(); sample != samples_.rend(); ++sample) {
    if (index >= sample->shards.size()) break;
    const Shard& then = sample->shards[index];
    if (!then.holds_experts || then.address != shard.address) break;
    since = &*sample;
  }
  return since;
}

double ShardBalance::Ratio(absl::Time now, const std::vector<Shard>& shards) {
  absl::MutexLock lock(&mu_);
  NoteLocked(now, shards);
  double most = 0, sum = 0;
  int n_shards = 0;
  for (size_t i = 0; i < shards.size(); ++i) {
    if (!shards[i].holds_experts) continue;
    const Sample* const since = Since(i, shards[i]);
    if (since == nullptr || now < since->at + kLeast) continue;
    const auto n_rows = static_cast<double>(shards[i].n_rows - since->shards[i].n_rows);
    const double rate = n_rows / absl::ToDoubleSeconds(now - since->at);
    most = std::max(most, rate);
    sum += rate;
    ++n_shards;
  }
  return sum == 0 ? 1 : most * n_shards / sum;
}

std::vector<ShardBalance::Shard> ShardsOf(const RoutingTable& table,
                                          const std::vector<DispatchCounters::Count>& rows_served) {
  std::vector<ShardBalance::Shard> shards;
  for (size_t i = 0; i < table.experts.size(); ++i) {
    const WorkerEntry& entry = table.experts[i];
    const bool holds = entry.in_use() && entry.shard.held_size() > 0;
    shards.push_back({entry.address, holds, rows_served[i]});
  }
  return shards;
}

}  // namespace gatefold
