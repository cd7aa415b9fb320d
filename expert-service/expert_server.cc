#include "expert-service/expert_server.h"

#include <utility>

#include "absl/time/clock.h"
#include "expert-service/expert_meter.h"
#include "gatefold/base/log.h"
#include "gatefold/base/status_macros.h"
#include "gatefold/rpc/reflection.h"
#include "gatefold/worker/metrics_host.h"

namespace gatefold {
namespace {
constexpr char kServiceName[] = "gatefold.internal.v1.ExpertService";
}  // namespace

ExpertServer::ExpertServer(const ExpertServiceOptions& options)
    : options_(options),
      threads_(NumThreads(options.worker.n_threads), absl::Microseconds(options.worker.spin_us)) {}

ExpertServer::~ExpertServer() {
  if (meter_ != nullptr) meter_->StopWatching();
  if (server_ != nullptr) server_->Shutdown(absl::ZeroDuration());
  loader_.reset();  // it tells the service what it does
}

absl::StatusOr<std::unique_ptr<ExpertServer>> ExpertServer::Start(
    const ExpertServiceOptions& options) {
  GF_RETURN_IF_ERROR(options.Validate());
  GF_ASSIGN_OR_RETURN(TransportSecurity security, TransportSecurity::ForServer(options.worker.tls));
  std::unique_ptr<ExpertServer> server(new ExpertServer(options));
  GF_ASSIGN_OR_RETURN(server->probes_, HealthListener::Start(MetricsHost(options.worker.listen),
                                                             options.worker.health_port));
  server->security_ = std::move(security);
  GF_RETURN_IF_ERROR(server->Listen());
  GF_RETURN_IF_ERROR(server->Load());
  server->probes_->SetStarted();
  server->probes_->SetReady(true);
  return server;
}

absl::Status ExpertServer::Listen() {
  GF_ASSIGN_OR_RETURN(weights_,
                      ModelWeights::Open(options_.worker.model_dir, {options_.worker.n_slices}));
  GF_ASSIGN_OR_RETURN(backend_, ChooseExpertBackend(options_.backend, *weights_, &threads_));
  store_ = std::make_unique<ExpertStore>(weights_.get(), backend_.get());
  runner_ = std::make_unique<ExpertRunner>(store_.get());
  GF_ASSIGN_OR_RETURN(meter_, ExpertMeter::Create(*store_, options_));
  if (options_.metrics_per_expert) meter_->WatchExperts(runner_.get());
  meter_->WatchCertificate("listen", [security = security_] { return security.not_after(); });
  internal::v1::WorkerDescription worker = DescribeWorker(options_.worker, *weights_);
  worker.set_metrics_address(meter_->address());
  worker.set_numerics_class(backend_->numerics_class());
  worker.set_isa(backend_->device());
  service_ = std::make_unique<ExpertService>(runner_.get(), worker, meter_.get());
  if (options_.experts == "none") {
    loader_ = std::make_unique<ExpertLoader>(
        weights_.get(), store_.get(),
        ExpertLoader::Options{options_.capacity_bytes, [this] { service_->Announce(); }});
    service_->SetLoader(loader_.get());
  }

  ServerOptions server_options;
  server_options.addresses = {options_.worker.listen};
  server_options.security = security_;
  server_options.authorize = security_.PeerCheck();
  GF_ASSIGN_OR_RETURN(server_options.wait, ParseWaitPolicy(options_.wait));
  server_options.on_call_done = [meter = meter_.get()](const CallRecord& call) {
    meter->OnCallDone(call);
  };
  server_ = std::make_unique<RpcServer>(std::move(server_options));
  service_->Register(server_.get());
  health_.Register(server_.get());
  AddReflection(server_.get());
  health_.SetServing("liveness", true);
  for (const char* name : {"", "startup", "readiness", kServiceName}) {
    health_.SetServing(name, false);
  }
  return server_->Start();
}

absl::Status ExpertServer::Load() {
  const ModelConfig& config = weights_->config();
  GF_ASSIGN_OR_RETURN(
      const std::vector<ExpertId> selected,
      ParseExpertSelection(options_.experts, config.n_layers, config.experts_per_layer()));
  uint64_t bytes = 0;
  for (const ExpertId& id : selected) bytes += weights_->ExpertBytes(id.layer, id.expert);
  LoadProgress progress({.label = "experts", .total_bytes = bytes});
  const absl::Time start = absl::Now();
  GF_RETURN_IF_ERROR(store_->Load(selected, &threads_, &progress));
  progress.Finish();
  meter_->OnLoaded(absl::Now() - start);
  LogEvent(LogLevel::kInfo, "experts_loaded",
           {{"experts", selected.size()},
            {"bytes", store_->loaded_bytes()},
            {"seconds", absl::ToDoubleSeconds(absl::Now() - start)}});
  service_->SetReady();
  for (const char* name : {"", "startup", "readiness", kServiceName}) {
    health_.SetServing(name, true);
  }
  return absl::OkStatus();
}

std::string ExpertServer::metrics_address() const { return meter_->address(); }

void ExpertServer::Drain() {
  const absl::Time start = absl::Now();
  service_->SetDraining();
  health_.SetServing("readiness", false);
  probes_->SetReady(false);
  LogEvent(LogLevel::kInfo, "draining", {{"address", address()}});
  // Routers move over within one look at the description; then no call comes any more.
  while (absl::Now() - start < options_.drain_limit) {
    const absl::Time quiet_since = std::max(start, meter_->last_call());
    const absl::Time quiet_at = quiet_since + options_.drain_quiet;
    if (absl::Now() >= quiet_at) break;
    absl::SleepFor(quiet_at - absl::Now());
  }
  service_->EndWatches();  // or they would have to be waited for
  server_->Shutdown(absl::Seconds(1));
}

}  // namespace gatefold
