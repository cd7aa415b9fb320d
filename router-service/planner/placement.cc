#include "router-service/planner/placement.h"

#include <algorithm>
#include <cmath>
#include <limits>
#include <map>
#include <numeric>

#include "absl/strings/str_cat.h"
#include "router-service/planner/items.h"

namespace gatefold {
namespace {

// Numbers names as they come; a nameless domain is the shard's own.
int Domain(std::map<std::string, int>* numbers, const std::string& name, const std::string& shard) {
  const std::string key =
      name.empty() ? absl::StrCat("shard ", shard) : absl::StrCat("named ", name);
  return numbers->emplace(key, static_cast<int>(numbers->size())).first->second;
}

void Insert(std::vector<uint32_t>* sorted, uint32_t item) {
  sorted->insert(std::lower_bound(sorted->begin(), sorted->end(), item), item);
}

}  // namespace

Placement::Placement(const PlannerInput& input, const PlannerOptions& options)
    : n_layers_(input.n_layers), n_experts_(input.n_experts) {
  const size_t n_items = static_cast<size_t>(n_layers_) * n_experts_;
  holders_.resize(n_items);
  load_ = input.load.empty() ? std::vector<double>(n_items, 1.0) : input.load;

  std::vector<size_t> order(input.shards.size());
  std::iota(order.begin(), order.end(), 0);
  std::sort(order.begin(), order.end(),
            [&](size_t a, size_t b) { return input.shards[a].name < input.shards[b].name; });
  std::map<std::string, int> nodes, zones;
  for (const size_t place : order) {
    const ShardState& state = input.shards[place];
    Shard& shard = shards_.emplace_back();
    shard.place = place;
    shard.speed = state.speed;
    const uint64_t slots = state.draining ? 0 : state.capacity_bytes / input.expert_bytes;
    shard.n_slots = static_cast<int>(std::min<uint64_t>(slots, n_items));
    shard.node = Domain(&nodes, state.node, state.name);
    // Where zones are not known there is no other zone to look for.
    shard.zone = state.zone.empty() ? -1 : Domain(&zones, state.zone, "");
    shard.held_before = state.held;
    std::sort(shard.held_before.begin(), shard.held_before.end());
    shard.held_before.erase(std::unique(shard.held_before.begin(), shard.held_before.end()),
                            shard.held_before.end());
    if (shard.n_slots == 0) continue;
    ++n_usable_;
    total_speed_ += shard.speed;
  }
  layer_load_.resize(shards_.size() * n_layers_);

  wanted_.resize(n_items);
  const int most = std::min(options.max_replicas, n_usable_);
  for (int layer = 0; layer < n_layers_; ++layer) {
    const auto begin = load_.begin() + static_cast<ptrdiff_t>(layer) * n_experts_;
    const double sum = std::accumulate(begin, begin + n_experts_, 0.0);
    const double least = sum > 0 ? sum / n_experts_ / 100 : 1;
    for (auto it = begin; it != begin + n_experts_; ++it) *it = std::max(*it, least);
    const double all = std::accumulate(begin, begin + n_experts_, 0.0);
    total_load_ += all;
    // An expert's fair share: a shard's part of the layer, or an even part where there are fewer
    // experts than shards.
    const double fair = all / std::max(1, std::min(n_experts_, n_usable_));
    for (int e = 0; e < n_experts_; ++e) {
      const int by_load = static_cast<int>(std::min(1e6, std::floor(*(begin + e) / fair + 0.5)));
      wanted_[static_cast<size_t>(layer) * n_experts_ + e] =
          std::max(std::min(options.min_replicas, n_usable_), std::min(by_load, most));
    }
  }
}

double Placement::replica_load(uint32_t item) const {
  return load_[item] / std::max<double>(1, static_cast<double>(holders_[item].size()));
}

bool Placement::held_before(int shard, uint32_t item) const {
  return Contains(shards_[shard].held_before, item);
}

bool Placement::holds(int shard, uint32_t item) const {
  const std::vector<int>& holders = holders_[item];
  return std::find(holders.begin(), holders.end(), shard) != holders.end();
}

int Placement::Nearness(int shard, uint32_t item, int but) const {
  int nearest = 0;
  for (const int other : holders_[item]) {
    if (other == but || other == shard) continue;
    if (shards_[other].node == shards_[shard].node) return 2;
    if (shards_[other].zone == shards_[shard].zone && shards_[shard].zone >= 0) nearest = 1;
  }
  return nearest;
}

void Placement::AddLoad(uint32_t item, double sign) {
  if (holders_[item].empty()) return;
  const double part = sign * replica_load(item);
  for (const int shard : holders_[item]) {
    shards_[shard].total += part;
    layer_load_[static_cast<size_t>(shard) * n_layers_ + layer_of(item)] += part;
  }
}

void Placement::Add(int shard, uint32_t item) {
  AddLoad(item, -1);
  std::vector<int>& holders = holders_[item];
  holders.insert(std::lower_bound(holders.begin(), holders.end(), shard), shard);
  AddLoad(item, 1);
  Insert(&shards_[shard].items, item);
}

void Placement::Remove(int shard, uint32_t item) {
  AddLoad(item, -1);
  std::vector<int>& holders = holders_[item];
  holders.erase(std::find(holders.begin(), holders.end(), shard));
  AddLoad(item, 1);
  std::vector<uint32_t>& items = shards_[shard].items;
  items.erase(std::lower_bound(items.begin(), items.end(), item));
}

Plan Placement::Result() const {
  Plan plan;
  plan.experts.resize(shards_.size());
  double largest = 0;
  for (int i = 0; i < n_shards(); ++i) {
    plan.experts[shards_[i].place] = shards_[i].items;
    for (const uint32_t item : shards_[i].items) plan.n_loads += !held_before(i, item);
    largest = std::max(largest, usable(i) ? total(i) : 0);
  }
  double placed = 0;
  for (uint32_t item = 0; item < n_items(); ++item) {
    if (holders_[item].empty()) {
      plan.uncovered.push_back(item);
    } else {
      placed += load_[item];
    }
  }
  if (placed > 0) plan.imbalance = largest / (placed / total_speed_);
  return plan;
}

}  // namespace gatefold
