#pragma once

#include <cstdint>
#include <string>
#include <vector>

#include "router-service/planner/planner.h"

namespace gatefold {

// A plan in the making: who holds what, and what load that means. Shards are numbered in the order
// of their names. A replica carries an equal part of its expert's load.
class Placement {
 public:
  // The input has been checked.
  Placement(const PlannerInput& input, const PlannerOptions& options);

  int n_shards() const { return static_cast<int>(shards_.size()); }
  uint32_t n_items() const { return static_cast<uint32_t>(holders_.size()); }  // all experts
  int layer_of(uint32_t item) const { return static_cast<int>(item) / n_experts_; }

  const std::vector<int>& holders(uint32_t item) const { return holders_[item]; }
  const std::vector<uint32_t>& items(int shard) const { return shards_[shard].items; }
  // Replicas this expert should have by its load, if there is room.
  int wanted_replicas(uint32_t item) const { return wanted_[item]; }
  double load(uint32_t item) const { return load_[item]; }
  double replica_load(uint32_t item) const;
  bool held_before(int shard, uint32_t item) const;

  // A shard that takes experts: neither draining nor too small for one.
  bool usable(int shard) const { return shards_[shard].n_slots > 0; }
  int n_usable() const { return n_usable_; }
  bool has_room(int shard) const {
    return static_cast<int>(shards_[shard].items.size()) < shards_[shard].n_slots;
  }
  bool holds(int shard, uint32_t item) const;

  // Load over speed. Of a shard; of a layer on it; the mean that all usable shards would have.
  double total(int shard) const { return shards_[shard].total / shards_[shard].speed; }
  double in_layer(int shard, int layer) const {
    return layer_load_[static_cast<size_t>(shard) * n_layers_ + layer] / shards_[shard].speed;
  }
  double speed(int shard) const { return shards_[shard].speed; }
  double mean() const { return total_load_ / total_speed_; }

  // How near `shard` is to other holders of the item (`but` left out): 0 another zone, 1 another
  // node of the same zone, 2 the same node.
  int Nearness(int shard, uint32_t item, int but = -1) const;

  void Add(int shard, uint32_t item);
  void Remove(int shard, uint32_t item);

  Plan Result() const;

 private:
  struct Shard {
    size_t place = 0;  // in the input
    double speed = 1;
    int n_slots = 0;
    int node = 0, zone = 0;
    std::vector<uint32_t> items;        // ascending
    std::vector<uint32_t> held_before;  // ascending
    double total = 0;                   // load
  };
  // The replicas of an expert share its load: all holders change when one comes or goes.
  void AddLoad(uint32_t item, double sign);

  const int n_layers_, n_experts_;
  std::vector<Shard> shards_;
  std::vector<std::vector<int>> holders_;  // by item, ascending
  std::vector<double> load_;
  std::vector<int> wanted_;
  std::vector<double> layer_load_;  // [shard, layer]
  double total_load_ = 0, total_speed_ = 0;
  int n_usable_ = 0;
};

}  // namespace gatefold
