#include "router-service/directory_view.h"

#include <algorithm>

namespace gatefold {
namespace {

cluster::v1::WorkerState StateOf(WorkerEntry::State state) {
  switch (state) {
    case WorkerEntry::State::kUnreachable:
      return cluster::v1::WORKER_STATE_UNREACHABLE;
    case WorkerEntry::State::kMismatch:
      return cluster::v1::WORKER_STATE_MISMATCH;
    case WorkerEntry::State::kLoading:
      return cluster::v1::WORKER_STATE_LOADING;
    case WorkerEntry::State::kReady:
      return cluster::v1::WORKER_STATE_READY;
    case WorkerEntry::State::kDraining:
      return cluster::v1::WORKER_STATE_DRAINING;
  }
  return cluster::v1::WORKER_STATE_UNSPECIFIED;
}

void Describe(const WorkerEntry& entry, cluster::v1::WorkerKind kind, cluster::v1::Worker* worker) {
  worker->set_name(entry.name());
  worker->set_address(entry.address);
  worker->set_kind(kind);
  worker->set_state(StateOf(entry.state));
  worker->set_incarnation(entry.worker.incarnation());
  worker->set_numerics_class(entry.worker.numerics_class());
  worker->set_isa(entry.worker.isa());
  worker->set_version(entry.worker.version());
  worker->set_metrics_address(entry.worker.metrics_address());
  worker->set_detail(entry.detail);
  for (const internal::v1::ExpertRange& range : entry.shard.held()) {
    worker->set_n_experts(worker->n_experts() + range.n_experts());
  }
  worker->set_loaded_bytes(entry.shard.loaded_bytes());
  worker->set_n_kv_blocks(entry.attention.n_kv_blocks());
  worker->set_n_kv_blocks_free(entry.attention.n_kv_blocks_free());
  worker->set_n_sequences(entry.attention.n_sequences());
}

// By shard: experts that no other serves. Those that drain do not serve, though they are used while
// there is nobody else: who stops two of them must not lose what only these two hold.
std::vector<uint32_t> CountSole(const RoutingTable& table) {
  std::vector<uint32_t> sole(table.experts.size());
  for (const std::vector<int>& holders : table.holders) {
    const bool one_serves = std::any_of(holders.begin(), holders.end(), [&table](int shard) {
      return table.experts[shard].state == WorkerEntry::State::kReady;
    });
    if (one_serves && holders.size() > 1) continue;
    for (const int shard : holders) ++sole[shard];
  }
  return sole;
}

}  // namespace

cluster::v1::GetClusterResponse DirectoryView::Snapshot() const {
  const std::shared_ptr<const RoutingTable> table = directory_->Table();
  cluster::v1::GetClusterResponse cluster;
  cluster.set_model(model_name_);
  cluster.set_model_fingerprint(model_fingerprint_);
  cluster.set_coverage_ratio(table->CoverageRatio());
  cluster.set_topology_version(table->version);
  bool attention_ready = table->attention.empty();  // colocated
  for (size_t i = 0; i < table->attention.size(); ++i) {
    const WorkerEntry& entry = table->attention[i];
    if (entry.gone) continue;
    cluster::v1::Worker* worker = cluster.add_workers();
    Describe(entry, cluster::v1::WORKER_KIND_ATTENTION, worker);
    worker->set_busy_ratio(directory_->BusyRatio(/*expert=*/false, static_cast<int>(i)));
    attention_ready |= entry.state == WorkerEntry::State::kReady;
  }
  const std::vector<uint32_t> sole = CountSole(*table);
  for (size_t i = 0; i < table->experts.size(); ++i) {
    if (table->experts[i].gone) continue;
    cluster::v1::Worker* worker = cluster.add_workers();
    Describe(table->experts[i], cluster::v1::WORKER_KIND_EXPERT, worker);
    worker->set_rows_served(counters_->rows_served[i]);
    worker->set_n_sole_experts(sole[i]);
    worker->set_busy_ratio(directory_->BusyRatio(/*expert=*/true, static_cast<int>(i)));
  }
  cluster.set_ready(attention_ready && cluster.coverage_ratio() == 1);
  return cluster;
}

std::vector<cluster::v1::ExpertLoad> DirectoryView::ExpertLoads() const {
  const std::shared_ptr<const RoutingTable> table = directory_->Table();
  const std::vector<std::string> names = ShardNames();
  std::vector<cluster::v1::ExpertLoad> loads;
  const int per_layer = config_.experts_per_layer();
  for (size_t i = 0; i < table->holders.size(); ++i) {
    cluster::v1::ExpertLoad& load = loads.emplace_back();
    load.set_layer(static_cast<uint32_t>(i / per_layer));
    load.set_expert(static_cast<uint32_t>(i % per_layer));
    load.set_rows(counters_->rows_of_expert[i]);
    for (int shard : table->holders[i]) load.add_shards(names[shard]);
  }
  return loads;
}

std::vector<std::string> DirectoryView::ShardNames() const {
  std::vector<std::string> names;
  for (const WorkerEntry& entry : directory_->Table()->experts) {
    names.push_back(entry.name());
  }
  return names;
}

bool DirectoryView::mixed_numerics() const { return directory_->Table()->mixed_numerics; }

}  // namespace gatefold
