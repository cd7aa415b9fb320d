#include "router-service/dispatch/routing_table.h"

#include <algorithm>
#include <string>
#include <vector>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_join.h"

namespace gatefold {

const char* WorkerStateName(WorkerEntry::State state) {
  switch (state) {
    case WorkerEntry::State::kUnreachable:
      return "unreachable";
    case WorkerEntry::State::kMismatch:
      return "mismatch";
    case WorkerEntry::State::kLoading:
      return "loading";
    case WorkerEntry::State::kReady:
      return "ready";
    case WorkerEntry::State::kDraining:
      return "draining";
  }
  return "unknown";
}

double RoutingTable::CoverageRatio() const {
  if (holders.empty()) return 1;
  const auto held = std::count_if(holders.begin(), holders.end(),
                                  [](const std::vector<int>& shards) { return !shards.empty(); });
  return static_cast<double>(held) / static_cast<double>(holders.size());
}

std::string RoutingTable::Uncovered() const {
  constexpr size_t kMostRanges = 16;
  std::vector<std::string> ranges;
  size_t n_more = 0;
  for (size_t item = 0; item < holders.size(); ++item) {
    if (!holders[item].empty()) continue;
    const size_t layer = item / experts_per_layer, first = item % experts_per_layer;
    const size_t end = (layer + 1) * experts_per_layer;
    while (item + 1 < end && holders[item + 1].empty()) ++item;
    if (ranges.size() == kMostRanges) {
      ++n_more;
      continue;
    }
    const size_t last = item % experts_per_layer;
    ranges.push_back(absl::StrCat(layer, ":", first));
    if (last > first) absl::StrAppend(&ranges.back(), "-", last);
  }
  const std::string text = absl::StrJoin(ranges, ",");
  return n_more == 0 ? text : absl::StrCat(text, " and ", n_more, " ranges more");
}

void RoutingTable::FindHolders(int n_layers) {
  const size_t n_experts = static_cast<size_t>(n_layers) * experts_per_layer;
  last_holders.resize(n_experts, -1);
  holders.assign(n_experts, {});
  for (const auto state : {WorkerEntry::State::kReady, WorkerEntry::State::kDraining}) {
    const bool last_resort = state == WorkerEntry::State::kDraining;
    const std::vector<std::vector<int>> before = holders;
    for (size_t s = 0; s < experts.size(); ++s) {
      if (experts[s].state != state) continue;
      for (const internal::v1::ExpertRange& range : experts[s].shard.held()) {
        if (range.layer() >= static_cast<uint32_t>(n_layers)) continue;
        const uint64_t end = std::min<uint64_t>(uint64_t{range.first_expert()} + range.n_experts(),
                                                experts_per_layer);
        for (uint64_t expert = range.first_expert(); expert < end; ++expert) {
          const size_t at = IndexOf(static_cast<int>(range.layer()), static_cast<int>(expert));
          if (last_resort && !before[at].empty()) continue;
          const int shard = static_cast<int>(s);  // once, however often it says so
          if (holders[at].empty() || holders[at].back() != shard) holders[at].push_back(shard);
        }
      }
    }
  }
  uint64_t seen = 0;
  mixed_numerics = false;
  for (size_t i = 0; i < n_experts; ++i) {
    if (!holders[i].empty()) last_holders[i] = holders[i].front();
    for (const int shard : holders[i]) {
      const uint64_t numerics_class = experts[shard].worker.numerics_class();
      mixed_numerics |= seen != 0 && seen != numerics_class;
      seen = numerics_class;
    }
  }
}

}  // namespace gatefold
