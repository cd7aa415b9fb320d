#include "router-service/planner/holders.h"

#include <algorithm>
#include <cmath>
#include <iterator>
#include <tuple>

#include "router-service/planner/items.h"

namespace gatefold {
namespace {

bool SendsHeld(const HolderView& shard, uint32_t item) {
  return shard.sends_held && Contains(shard.announced, item);
}

// One shard by one of its two ways to have experts.
struct Candidate {
  int shard;
  bool from_checkpoint;
  std::tuple<bool, bool, int, int> rank;  // lowest first
};

std::vector<Candidate> Candidates(const std::vector<HolderView>& shards, int self) {
  const int n = static_cast<int>(shards.size());
  std::vector<Candidate> candidates;
  for (int i = 0; i < n; ++i) {
    const HolderView& shard = shards[i];
    if (i == self || !shard.usable) continue;
    const int tenths = static_cast<int>(std::lround(shard.busy * 10));  // less makes no difference
    const int distance = (i - self + n) % n;
    if (shard.sends_held) {
      candidates.push_back({i, false, {false, shard.draining, tenths, distance}});
    }
    if (shard.has_checkpoint) {
      candidates.push_back({i, true, {true, shard.draining, tenths, distance}});
    }
  }
  std::sort(candidates.begin(), candidates.end(),
            [](const Candidate& a, const Candidate& b) { return a.rank < b.rank; });
  return candidates;
}

}  // namespace

bool Gives(const HolderView& shard, uint32_t item) {
  return shard.usable && (shard.has_checkpoint || SendsHeld(shard, item));
}

std::vector<Holder> FindHolders(const std::vector<HolderView>& shards, int self,
                                const std::vector<uint32_t>& missing) {
  std::vector<Holder> holders;
  std::vector<int> n_found(missing.size());
  for (const Candidate& candidate : Candidates(shards, self)) {
    if (holders.size() == kMaxHolders) break;
    const HolderView& shard = shards[candidate.shard];
    Holder holder{candidate.shard, {}};
    for (size_t i = 0; i < missing.size(); ++i) {
      // What it holds it was named for before.
      const bool held = SendsHeld(shard, missing[i]);
      if (n_found[i] == kHoldersPerExpert || held == candidate.from_checkpoint) continue;
      holder.items.push_back(missing[i]);
      ++n_found[i];
    }
    if (!holder.items.empty()) holders.push_back(std::move(holder));
  }
  return holders;
}

}  // namespace gatefold
