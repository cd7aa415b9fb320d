#pragma once

#include <cstdint>
#include <vector>

#include "router-service/planner/planner.h"

namespace gatefold::cli {

// What one layer of one step asks of the shards, on average over layers and steps.
struct LayerTraffic {
  double n_messages = 0;       // shards that get a message, and answer it
  double n_rows_sent = 0;      // rows on the wire: one for each (row, shard that it visits)
  double n_rows_answered = 0;  // (row, expert) pairs
  // Of the busiest shard: the layer's step waits for it. What is busiest depends on the machine, so
  // both are given for the shard with the larger of each.
  double most_experts = 0;  // different experts that it computes
  double most_rows = 0;     // (row, expert) pairs that it computes
  double imbalance = 1;     // most_rows over the mean of all shards
};

struct TrafficOptions {
  int n_rows = 64;  // of a step
  int top_k = 2;
  int n_steps = 8;  // that are drawn; every layer of each counts
  // How much some experts are preferred: the r-th most popular one of a layer is chosen in
  // proportion to r^-skew. 0: all alike.
  double skew = 0;
  uint64_t seed = 1;
};

// Chance of being chosen first by a row, by expert: layer * n_experts + expert; which experts are
// popular differs by layer. The same for the same options.
std::vector<double> ExpertPopularity(int n_layers, int n_experts, const TrafficOptions& options);

// Draws the experts of every row and sends the rows where the plan has them, replicas taking turns
// as the router lets them. Every expert is placed in the plan. Deterministic.
LayerTraffic DrawTraffic(const Plan& plan, int n_layers, int n_experts,
                         const std::vector<double>& popularity, const TrafficOptions& options);

}  // namespace gatefold::cli
