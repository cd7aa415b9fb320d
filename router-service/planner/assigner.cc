#include "router-service/planner/assigner.h"

#include <algorithm>
#include <iterator>

namespace gatefold {
namespace {

bool Contains(const std::vector<uint32_t>& sorted, uint32_t item) {
  return std::binary_search(sorted.begin(), sorted.end(), item);
}

}  // namespace

void Assigner::NoteComplete(const std::vector<ShardView>& shards, const Plan& plan,
                            absl::Time now) {
  std::vector<int> planned(complete_since_.size()), announced(complete_since_.size());
  for (size_t i = 0; i < shards.size(); ++i) {
    for (const uint32_t item : plan.experts[i]) {
      ++planned[item];
      announced[item] += shards[i].ready && Contains(shards[i].announced, item);
    }
  }
  for (size_t item = 0; item < complete_since_.size(); ++item) {
    const bool complete = planned[item] > 0 && announced[item] == planned[item];
    if (!complete) {
      complete_since_[item].reset();
    } else if (!complete_since_[item].has_value()) {
      complete_since_[item] = now;
    }
  }
}

std::vector<std::optional<std::vector<uint32_t>>> Assigner::Next(
    const std::vector<ShardView>& shards, const Plan& plan, absl::Time now) {
  NoteComplete(shards, plan, now);
  std::vector<std::optional<std::vector<uint32_t>>> next(shards.size());
  for (size_t i = 0; i < shards.size(); ++i) {
    const ShardView& shard = shards[i];
    if (!shard.ready || shard.draining) continue;
    const std::vector<uint32_t>& target = plan.experts[i];
    std::vector<uint32_t> kept;  // serving, and not to be missed yet
    for (const uint32_t item : shard.announced) {
      const std::optional<absl::Time>& since = complete_since_[item];
      const bool needed_here = !since.has_value() || now < *since + grace_;
      if (Contains(target, item) || needed_here) kept.push_back(item);
    }
    // What comes must fit beside what stays.
    const uint64_t slots =
        shard.capacity_bytes == 0 ? complete_since_.size() : shard.capacity_bytes / expert_bytes_;
    std::vector<uint32_t> coming;
    for (const uint32_t item : target) {
      if (kept.size() + coming.size() >= slots) break;
      if (!Contains(shard.announced, item)) coming.push_back(item);
    }
    std::vector<uint32_t>& all = next[i].emplace();
    std::merge(kept.begin(), kept.end(), coming.begin(), coming.end(), std::back_inserter(all));
  }
  return next;
}

}  // namespace gatefold
