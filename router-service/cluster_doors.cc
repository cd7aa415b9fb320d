#include "router-service/cluster_doors.h"

#include <algorithm>
#include <utility>

#include "absl/strings/str_cat.h"
#include "absl/time/clock.h"
#include "gatefold/base/errors.h"
#include "gatefold/base/log.h"
#include "gatefold/base/status_macros.h"
#include "gatefold/engine/prefix_hash.h"
#include "gatefold/rpc/process.h"
#include "router-service/readiness.h"

namespace gatefold {
namespace {

// Besides tokens and model, keys and values depend on how hidden states are rounded between
// services, and on the numerics of the experts that computed them: routers that differ in this must
// not share any, and an attention-service outlives both. numerics_class 0: of any.
uint64_t CacheDomain(internal::v1::WireDtype dtype, uint64_t numerics_class) {
  return std::max<uint64_t>(PrefixHash(numerics_class, {static_cast<int32_t>(dtype)}), 1);
}

void LogMissing(const RoutingTable& table) {
  LogEvent(LogLevel::kInfo, "waiting_for_workers",
           {{"experts_covered", absl::StrCat(static_cast<int>(100 * table.CoverageRatio()), "%")},
            {"uncovered", table.Uncovered()}});
  for (const auto* entries : {&table.experts, &table.attention}) {
    for (const WorkerEntry& entry : *entries) {
      if (entry.state == WorkerEntry::State::kReady) continue;
      LogEvent(LogLevel::kInfo, "worker_not_ready",
               {{"worker", entry.address},
                {"state", WorkerStateName(entry.state)},
                {"detail", entry.detail}});
    }
  }
}

}  // namespace

absl::StatusOr<std::unique_ptr<ClusterDoors>> ClusterDoors::Connect(const ClusterOptions& cluster,
                                                                    const RouterOptions& options,
                                                                    const ModelWeights& weights) {
  if (cluster.experts.empty() || cluster.experts.addresses.size() > kMaxWorkers) {
    return absl::InvalidArgumentError(absl::StrCat("--experts names ",
                                                   cluster.experts.addresses.size(),
                                                   " services, must be 1 to ", kMaxWorkers));
  }
  std::unique_ptr<ClusterDoors> doors(new ClusterDoors());
  GF_RETURN_IF_ERROR(doors->SetOptions(cluster, options, weights));
  GF_RETURN_IF_ERROR(doors->FindWorkers(cluster, weights.config()));
  if (cluster.planner) GF_RETURN_IF_ERROR(doors->StartPlanner(cluster, weights));
  const ModelConfig& config = weights.config();
  doors->counters_ = std::make_unique<DispatchCounters>(
      kMaxWorkers, static_cast<size_t>(config.n_layers) * config.experts_per_layer());
  doors->view_ =
      std::make_unique<DirectoryView>(options.ModelName(), doors->model_fingerprint_, config,
                                      doors->directory_.get(), doors->counters_.get());
  ClusterControl::Options control;
  control.channels.security = cluster.security;
  doors->control_ = std::make_unique<ClusterControl>(control, doors->directory_.get(),
                                                     doors->view_.get(), doors->planner_.get());
  return doors;
}

absl::Status ClusterDoors::SetOptions(const ClusterOptions& cluster, const RouterOptions& options,
                                      const ModelWeights& weights) {
  model_fingerprint_ = weights.Fingerprint();
  router_id_ = RandomId();
  d_model_ = weights.config().d_model;
  mixes_numerics_ = cluster.allow_mixed_numerics;
  remote_attention_ = !cluster.attention.empty();
  experts_.hedge = options.hedge;
  experts_.verify_share = options.verify_share;
  experts_.renormalise = options.on_missing_expert == "renormalise";
  if (experts_.renormalise && !weights.config().sparse()) {
    return absl::InvalidArgumentError(
        "--on-missing-expert is renormalise, but the model is dense: every row needs every slice");
  }
  // What both doors have alike.
  experts_.dtype = options.wire_dtype == "bfloat16" ? internal::v1::WIRE_DTYPE_BFLOAT16
                                                    : internal::v1::WIRE_DTYPE_FLOAT32;
  GF_ASSIGN_OR_RETURN(experts_.wait, ParseWaitPolicy(options.wait));
  experts_.channels.security = cluster.security;
  experts_.channels.traffic = traffic_;
  attention_.dtype = experts_.dtype;
  attention_.wait = experts_.wait;
  attention_.channels = experts_.channels;
  return absl::OkStatus();
}

absl::Status ClusterDoors::FindWorkers(const ClusterOptions& cluster, const ModelConfig& config) {
  ClusterIdentity identity;
  identity.config_fingerprint = ConfigFingerprint(config);
  identity.model_fingerprint = model_fingerprint_;
  identity.allow_mixed_numerics = cluster.allow_mixed_numerics;
  identity.n_layers = config.n_layers;
  identity.experts_per_layer = config.experts_per_layer();
  Directory::Options directory;
  directory.channels.security = cluster.security;
  directory.channels.traffic = traffic_;
  directory.expert_addresses = cluster.experts.addresses;
  directory.attention_addresses = cluster.attention.addresses;
  GF_ASSIGN_OR_RETURN(directory_, Directory::Start(directory, identity));
  if (cluster.experts.names.empty() && cluster.attention.names.empty()) return absl::OkStatus();
  Discovery::Options discovery;
  discovery.expert_names = cluster.experts.names;
  discovery.attention_names = cluster.attention.names;
  discovery.on_change = [known = directory_.get()](const Discovery::Found& found) {
    known->SetDiscovered(found.experts, found.attention);
  };
  discovery_ = std::make_unique<Discovery>(std::move(discovery));
  return absl::OkStatus();
}

absl::Status ClusterDoors::StartPlanner(const ClusterOptions& cluster,
                                        const ModelWeights& weights) {
  const ModelConfig& config = weights.config();
  ClusterPlanner::Options planner;
  planner.channels.security = cluster.security;
  planner.channels.traffic = traffic_;
  planner.plan.min_replicas = cluster.min_replicas;
  planner.plan.max_replicas = std::max(planner.plan.max_replicas, cluster.min_replicas);
  GF_ASSIGN_OR_RETURN(planner_, ClusterPlanner::Start(planner,
                                                      {config.n_layers, config.experts_per_layer(),
                                                       weights.ExpertBytes(0, 0)},
                                                      directory_.get()));
  return absl::OkStatus();
}

absl::Status ClusterDoors::WhyNotReady() const {
  const std::shared_ptr<const RoutingTable> table = directory_->Table();
  for (const auto* entries : {&table->experts, &table->attention}) {
    for (const WorkerEntry& entry : *entries) {
      if (entry.state != WorkerEntry::State::kMismatch || entry.worker.model_fingerprint().empty())
        continue;
      if (entry.worker.model_fingerprint() == model_fingerprint_) continue;
      return Annotate(CheckpointMismatch("model fingerprint", model_fingerprint_,
                                         entry.worker.model_fingerprint()),
                      entry.address);
    }
  }
  return ModelLoading(absl::Seconds(1));
}

bool ClusterDoors::AwaitReady() {
  absl::Time report = absl::Now() + absl::Seconds(2);
  while (!TerminationRequested()) {
    const auto complete = [this](const RoutingTable& table) {
      return IsComplete(table, remote_attention_);
    };
    if (directory_->Await(complete, absl::Now() + absl::Milliseconds(100))) {
      // Shards that drain do not decide the class, and answers must not change it under way.
      if (directory_->ExpertNumerics().numerics_class != 0) return true;
      absl::SleepFor(absl::Milliseconds(100));
    }
    if (absl::Now() < report) continue;
    LogMissing(*directory_->Table());
    report = absl::Now() + absl::Seconds(5);
  }
  return false;
}

// The least of those that serve: a sequence may have to move.
int ClusterDoors::MaxSequenceTokens() const {
  int least = 0;
  for (const WorkerEntry& entry : directory_->Table()->attention) {
    if (entry.state != WorkerEntry::State::kReady) continue;
    const int theirs = static_cast<int>(entry.attention.max_sequence_tokens());
    least = least == 0 ? theirs : std::min(least, theirs);
  }
  return least;
}

RouterDoors ClusterDoors::Doors(
    std::function<absl::StatusOr<std::unique_ptr<AttentionClient>>(int lane)> local_attention,
    int local_max_sequence_tokens) const {
  RouterDoors doors;
  doors.cluster = view_.get();
  doors.admin = control_.get();
  doors.experts = [this](int) -> absl::StatusOr<std::unique_ptr<ExpertClient>> {
    return std::make_unique<RemoteExpertClient>(experts_, router_id_, d_model_, directory_.get(),
                                                counters_.get());
  };
  if (local_attention) {
    doors.attention = std::move(local_attention);
    doors.max_sequence_tokens = local_max_sequence_tokens;
  } else {
    RemoteAttentionOptions attention = attention_;
    // What was computed without an expert must not be taken for more than that.
    attention.cache_domain =
        experts_.renormalise
            ? 0
            : CacheDomain(attention.dtype,
                          mixes_numerics_ ? 0 : directory_->ExpertNumerics().numerics_class);
    doors.attention = [this,
                       attention](int lane) -> absl::StatusOr<std::unique_ptr<AttentionClient>> {
      return std::make_unique<RemoteAttentionClient>(attention, router_id_, lane, d_model_,
                                                     directory_.get(), affinity_.get());
    };
    doors.max_sequence_tokens = MaxSequenceTokens();
  }
  return doors;
}

}  // namespace gatefold
