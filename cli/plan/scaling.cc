#include "cli/plan/scaling.h"

#include <algorithm>
#include <cmath>
#include <utility>

#include "absl/status/status.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_format.h"
#include "cli/output.h"
#include "gatefold/base/status_macros.h"

namespace gatefold::cli {
namespace {

constexpr int kPoints = 6;  // of a table, if nobody says which

class Cluster {
 public:
  Cluster(const Architecture& model, const WeightFormat& format, const ScalingOptions& options)
      : model_(model), format_(format), options_(options) {
    traffic_ = options.traffic;
    traffic_.n_rows = options.workload.n_rows;
    traffic_.top_k = model.top_k;
    popularity_ = ExpertPopularity(model.n_routed_layers, model.n_experts, traffic_);
  }

  double room() const { return options_.memory_bytes - options_.reserved_bytes; }

  absl::StatusOr<Plan> Place(int n_shards) const {
    PlannerInput input;
    input.n_layers = model_.n_routed_layers;
    input.n_experts = model_.n_experts;
    input.expert_bytes = static_cast<uint64_t>(std::ceil(model_.ExpertBytes(format_)));
    input.load = popularity_;
    for (int i = 0; i < n_shards; ++i) {
      ShardState& shard = input.shards.emplace_back();
      shard.name = absl::StrFormat("expert-%03d", i);
      shard.capacity_bytes = static_cast<uint64_t>(room());
    }
    PlannerOptions planner;
    planner.min_replicas = options_.min_replicas;
    planner.max_replicas = std::max(planner.max_replicas, options_.min_replicas);
    return MakePlan(input, planner);
  }

  // The fewest pods with room for every expert as often as wanted.
  absl::StatusOr<int> Needed() const {
    const double expert = std::ceil(model_.ExpertBytes(format_));
    const double slots = std::floor(room() / expert);
    if (slots < 1) {
      return absl::ResourceExhaustedError(absl::StrCat("one expert takes ", FormatBytes(expert),
                                                       ", a pod has room for ",
                                                       FormatBytes(std::max(0.0, room()))));
    }
    const double wanted =
        static_cast<double>(model_.n_routed_layers) * model_.n_experts * options_.min_replicas;
    const double needed = std::max<double>(std::ceil(wanted / slots), options_.min_replicas);
    if (needed > kMostShards) {
      return absl::ResourceExhaustedError(
          absl::StrFormat("the experts take %.0f pods with room for %.0f each, a router talks to "
                          "%d at most: give pods more --memory, or weights fewer bytes (--weights)",
                          needed, slots, kMostShards));
    }
    return static_cast<int>(needed);
  }

  absl::StatusOr<ScalingPoint> Look(int n_shards, const Workload& workload) const {
    ScalingPoint point;
    point.n_shards = n_shards;
    GF_ASSIGN_OR_RETURN(const Plan plan, Place(n_shards));
    size_t placed = 0;
    for (const std::vector<uint32_t>& experts : plan.experts) {
      point.most_experts = std::max(point.most_experts, static_cast<int>(experts.size()));
      placed += experts.size();
    }
    const double n_items = static_cast<double>(model_.n_routed_layers) * model_.n_experts;
    point.n_replicas = static_cast<double>(placed) / n_items;
    point.most_bytes = point.most_experts * model_.ExpertBytes(format_);
    point.fits =
        plan.uncovered.empty() && point.n_replicas >= std::min(options_.min_replicas, n_shards);
    if (!plan.uncovered.empty()) return point;
    point.traffic =
        DrawTraffic(plan, model_.n_routed_layers, model_.n_experts, popularity_, traffic_);
    point.cost = CostOfStep(model_, format_, options_.machine, workload, point.traffic);
    return point;
  }

 private:
  const Architecture& model_;
  const WeightFormat& format_;
  const ScalingOptions& options_;
  TrafficOptions traffic_;
  std::vector<double> popularity_;
};

// As many attention-services as the KV cache needs, unless the workload says how many.
absl::Status PlaceAttention(const Architecture& model, double room, Scaling* scaling) {
  if (scaling->attention_bytes >= room) {
    return absl::ResourceExhaustedError(
        absl::StrCat("attention-service's weights take ", FormatBytes(scaling->attention_bytes),
                     ", a pod has room for ", FormatBytes(std::max(0.0, room)),
                     "; they are not split over pods"));
  }
  Workload* workload = &scaling->workload;
  const bool chosen = workload->n_attention > 0;
  if (!chosen) workload->n_attention = 1;
  while (scaling->attention_bytes + KvBytes(model, *workload) > room) {
    if (chosen || workload->n_attention >= std::min(workload->n_rows, kMostShards)) {
      return absl::ResourceExhaustedError(absl::StrCat(
          "the KV cache takes ", FormatBytes(KvBytes(model, *workload)), " on each of ",
          workload->n_attention, " attention-services beside ",
          FormatBytes(scaling->attention_bytes), " of weights, a pod has room for ",
          FormatBytes(room), ": lower --rows or --context, or raise --attention or --memory"));
    }
    ++workload->n_attention;
  }
  scaling->n_attention = workload->n_attention;
  scaling->kv_bytes = KvBytes(model, *workload);
  return absl::OkStatus();
}

}  // namespace

absl::StatusOr<Scaling> PlanScaling(const Architecture& model, const WeightFormat& format,
                                    const ScalingOptions& options, std::vector<int> n_shards) {
  const Cluster cluster(model, format, options);
  Scaling scaling;
  GF_ASSIGN_OR_RETURN(scaling.n_shards_needed, cluster.Needed());
  scaling.attention_bytes = model.AttentionBytes(format);
  scaling.workload = options.workload;
  GF_RETURN_IF_ERROR(PlaceAttention(model, cluster.room(), &scaling));
  if (n_shards.empty()) {
    for (int n = scaling.n_shards_needed; n <= kMostShards && n_shards.size() < kPoints; n *= 2) {
      n_shards.push_back(n);
    }
  }
  for (const int n : n_shards) {
    GF_ASSIGN_OR_RETURN(ScalingPoint point, cluster.Look(n, scaling.workload));
    scaling.points.push_back(std::move(point));
  }
  return scaling;
}

}  // namespace gatefold::cli
