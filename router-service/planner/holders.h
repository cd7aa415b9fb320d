#pragma once

#include <cstdint>
#include <vector>

namespace gatefold {

// A shard as one that others may fetch experts from.
struct HolderView {
  bool usable = false;  // answers, and serves this model
  bool draining = false;
  bool has_checkpoint = false;      // sends any expert
  bool sends_held = false;          // sends what it announces
  double busy = 0;                  // share of its time
  std::vector<uint32_t> announced;  // ascending
};

// Whether others can fetch this expert there.
bool Gives(const HolderView& shard, uint32_t item);

// Where some experts can be fetched: an entry of AssignRequest.holders.
struct Holder {
  int shard = 0;                // of the views
  std::vector<uint32_t> items;  // ascending
};

inline constexpr int kHoldersPerExpert = 4;  // at most: enough for some to fail
inline constexpr int kMaxHolders = 64;       // of one assignment

// Who can give `missing` (ascending) to shard `self`, best first: those that hold an expert in
// memory before those that would read it from their checkpoint, those that stay before those that
// drain, the idlest first, and of equals the one that follows `self`, so that not everybody asks
// the same one. A shard may be there twice.
std::vector<Holder> FindHolders(const std::vector<HolderView>& shards, int self,
                                const std::vector<uint32_t>& missing);

}  // namespace gatefold
