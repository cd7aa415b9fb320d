#pragma once

#include <cstdint>
#include <map>
#include <utility>
#include <vector>

#include "absl/time/time.h"

namespace gatefold {

// Rows per second by expert, from counters that only go up, as a moving average whose weight halves
// every half_life. Until there is traffic worth weighing all experts count alike: a few rows decide
// nothing.
class LoadAverage {
 public:
  LoadAverage(size_t n_items, absl::Duration half_life);

  // Counters of one shard's experts by item; `incarnation` tells a restarted shard's from those
  // before.
  void Note(int shard, uint64_t incarnation,
            const std::vector<std::pair<uint32_t, uint64_t>>& counters);
  // Takes in what was noted since the last time.
  void Advance(absl::Time now);

  // By item; never all zero.
  std::vector<double> Rates() const;

 private:
  struct Seen {
    uint64_t incarnation = 0;
    std::map<uint32_t, uint64_t> counters;
  };

  const absl::Duration half_life_;
  std::map<int, Seen> seen_;
  std::vector<double> new_rows_;  // since the last Advance, by item
  std::vector<double> rates_;
  absl::Time advanced_ = absl::InfinitePast();
};

}  // namespace gatefold
