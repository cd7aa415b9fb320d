#pragma once

#include <cstdint>
#include <vector>

#include "absl/status/statusor.h"
#include "cli/plan/architecture.h"
#include "cli/plan/cost_model.h"
#include "cli/plan/traffic.h"
#include "cli/plan/weight_format.h"
#include "router-service/planner/planner.h"

namespace gatefold::cli {

struct ScalingOptions {
  double memory_bytes = 0;    // of a pod
  double reserved_bytes = 0;  // of it, for everything but weights and KV cache
  int min_replicas = 1;       // of every expert
  Machine machine;
  Workload workload;       // n_attention 0: as many as the KV cache needs
  TrafficOptions traffic;  // n_rows and top_k are filled in
};

// A router talks to no more workers of a kind (router-service/dispatch/routing_table.h).
inline constexpr int kMostShards = 255;

// One number of expert-services.
struct ScalingPoint {
  int n_shards = 0;
  bool fits = false;  // every expert is placed as often as wanted; the rest means nothing otherwise
  int most_experts = 0;   // on one shard
  double most_bytes = 0;  // of weights on one shard
  double n_replicas = 0;  // of an expert, on average
  LayerTraffic traffic;
  StepCost cost;
};

struct Scaling {
  int n_shards_needed = 0;  // so that every expert has a place
  int n_attention = 1;
  double attention_bytes = 0;  // weights of one attention-service
  double kv_bytes = 0;         // its share of the KV cache
  Workload workload;           // with n_attention
  std::vector<ScalingPoint> points;
};

// Places the experts with the cluster's own planner, and adds up what a step costs then.
// `n_shards`: the numbers to look at, each 1 to kMostShards; empty: from what is needed, doubling.
// Errors: ResourceExhausted: an expert, or attention-service's weights, do not fit a pod, or
// kMostShards pods are too few; with both numbers.
absl::StatusOr<Scaling> PlanScaling(const Architecture& model, const WeightFormat& format,
                                    const ScalingOptions& options, std::vector<int> n_shards);

}  // namespace gatefold::cli
