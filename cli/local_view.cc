#include "cli/local_view.h"

#include <utility>

namespace gatefold {

LocalView::LocalView(std::string model, std::string device, const ModelWeights* weights,
                     const PrefixCache* kv, const ExpertRunner* runner,
                     const ResidentExperts* resident, const std::atomic<int>* n_sequences,
                     const RouterMeter* meter)
    : model_(std::move(model)),
      device_(std::move(device)),
      weights_(weights),
      kv_(kv),
      runner_(runner),
      resident_(resident),
      numerics_class_(runner->store().backend()->numerics_class()),
      n_sequences_(n_sequences),
      meter_(meter),
      busy_(meter) {}

cluster::v1::GetClusterResponse LocalView::Snapshot() const {
  cluster::v1::GetClusterResponse cluster;
  cluster.set_model(model_);
  cluster.set_model_fingerprint(weights_->Fingerprint());
  cluster.set_ready(true);
  cluster.set_coverage_ratio(1);
  cluster.set_topology_version(topology_version());
  cluster::v1::Worker* worker = cluster.add_workers();
  worker->set_name("local");
  worker->set_kind(cluster::v1::WORKER_KIND_ROUTER);
  worker->set_state(cluster::v1::WORKER_STATE_READY);
  const std::vector<ExpertId> held = runner_->store().Held();
  worker->set_n_experts(static_cast<uint32_t>(held.size()));
  worker->set_n_sole_experts(worker->n_experts());
  for (const ExpertId& id : held) worker->set_rows_served(worker->rows_served() + RowsOf(id));
  worker->set_loaded_bytes(runner_->store().loaded_bytes());
  worker->set_isa(device_);
  worker->set_version(kVersion);
  worker->set_n_kv_blocks(kv_->n_blocks());
  worker->set_n_kv_blocks_free(kv_->n_available());
  worker->set_n_sequences(*n_sequences_);
  worker->set_busy_ratio(busy_.ratio());
  worker->set_numerics_class(numerics_class_);
  worker->set_metrics_address(meter_->address());
  return cluster;
}

std::vector<cluster::v1::ExpertLoad> LocalView::ExpertLoads() const {
  std::vector<cluster::v1::ExpertLoad> loads;
  for (const ExpertId& id : runner_->store().Held()) {
    cluster::v1::ExpertLoad& load = loads.emplace_back();
    load.set_layer(id.layer);
    load.set_expert(id.expert);
    load.set_rows(RowsOf(id));
    load.add_shards("local");
  }
  return loads;
}

uint64_t LocalView::RowsOf(const ExpertId& id) const {
  return resident_ != nullptr ? resident_->n_rows(id.layer, id.expert) : runner_->n_rows(id);
}

}  // namespace gatefold
