#include "router-service/planner/load_average.h"

#include <algorithm>
#include <cmath>

namespace gatefold {
namespace {

// What every expert counts for beside its traffic, in rows per second.
constexpr double kPrior = 10;

}  // namespace

LoadAverage::LoadAverage(size_t n_items, absl::Duration half_life)
    : half_life_(half_life), new_rows_(n_items), rates_(n_items) {}

void LoadAverage::Note(int shard, uint64_t incarnation,
                       const std::vector<std::pair<uint32_t, uint64_t>>& counters) {
  Seen& seen = seen_[shard];
  const bool restarted = seen.incarnation != incarnation;
  if (restarted) seen = {incarnation, {}};
  for (const auto& [item, count] : counters) {
    if (item >= new_rows_.size()) continue;
    const auto [before, is_new] = seen.counters.emplace(item, count);
    // Counts from before the first look belong to a time that nobody knows.
    if (!is_new && count > before->second) {
      new_rows_[item] += static_cast<double>(count - before->second);
    }
    before->second = count;
  }
}

void LoadAverage::Advance(absl::Time now) {
  if (advanced_ != absl::InfinitePast() && now > advanced_) {
    const double seconds = absl::ToDoubleSeconds(now - advanced_);
    const double keep = std::exp2(-seconds / absl::ToDoubleSeconds(half_life_));
    for (size_t i = 0; i < rates_.size(); ++i) {
      rates_[i] = keep * rates_[i] + (1 - keep) * new_rows_[i] / seconds;
    }
  }
  std::fill(new_rows_.begin(), new_rows_.end(), 0.0);
  advanced_ = now;
}

std::vector<double> LoadAverage::Rates() const {
  std::vector<double> rates = rates_;
  for (double& rate : rates) rate += kPrior;
  return rates;
}

}  // namespace gatefold
