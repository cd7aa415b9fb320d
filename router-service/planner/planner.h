#pragma once

#include <cstdint>
#include <string>
#include <vector>

#include "absl/status/statusor.h"

namespace gatefold {

// Which shard is to hold which experts. Pure: the same input gives the same plan, whatever the
// order in which shards are listed.
//
// What a plan keeps to, the first first:
// 1. every expert is placed at least once, as far as there is room;
// 2. no shard gets more than its capacity, or an expert twice;
// 3. an expert has min_replicas, on different nodes, and in different zones, as far as there are
//    some with room;
// 4. an expert with more load than its share gets more replicas, in proportion, while there is
// room;
// 5. shards carry load in proportion to their speed, in every layer (a layer's step waits for its
//    slowest shard) and over all layers;
// 6. what is loaded stays where it is, unless moving it evens out more than options.tolerance, or it
//    is a replica to spare on a shard that is slow, and has too much to do.

struct ShardState {
  std::string name;  // unique
  uint64_t capacity_bytes = 0;
  double speed = 1;  // rows per second against the others'
  std::string node;  // failure domains; empty: of its own
  std::string zone;
  bool draining = false;       // gets nothing, and what it has is placed elsewhere
  std::vector<uint32_t> held;  // loaded or loading: layer * n_experts + expert, in any order
};

struct PlannerInput {
  int n_layers = 0;
  int n_experts = 0;  // of every layer
  uint64_t expert_bytes = 0;
  std::vector<ShardState> shards;
  // Rows per second by expert, layer * n_experts + expert; empty: all alike. Experts without load
  // count as if they had a hundredth of their layer's mean, so that they are spread, too.
  std::vector<double> load;
};

struct PlannerOptions {
  int min_replicas = 1;
  int max_replicas = 8;     // of a hot expert
  double tolerance = 0.05;  // shards within this share of the mean load are left alone
};

struct Plan {
  // By shard as in the input: what it is to hold, ascending.
  std::vector<std::vector<uint32_t>> experts;
  std::vector<uint32_t> uncovered;  // for lack of room, ascending
  int n_loads = 0;                  // (shard, expert) pairs of the plan that are not held yet
  double imbalance = 1;  // max over mean of load / speed over shards that may hold experts
};

// Errors: InvalidArgument naming the field: sizes that are not positive, two shards of one name, a
// held expert that does not exist, load of the wrong size, negative or not finite.
absl::StatusOr<Plan> MakePlan(const PlannerInput& input, const PlannerOptions& options);

}  // namespace gatefold
