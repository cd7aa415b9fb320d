#include "expert-service/expert_server.h"

#include <algorithm>
#include <utility>

#include "absl/time/clock.h"
#include "expert-service/expert_meter.h"
#include "expert-service/expert_transfer.h"
#include "gatefold/base/log.h"
#include "gatefold/base/status_macros.h"
#include "gatefold/rpc/call_context.h"
#include "gatefold/rpc/channelz.h"
#include "gatefold/rpc/payload_buffer.h"
#include "gatefold/rpc/reflection.h"
#include "gatefold/worker/metrics_host.h"

namespace gatefold {
namespace {
constexpr char kServiceName[] = "gatefold.internal.v1.ExpertService";
// For shards that are busy sending, where there is nothing else to load from.
constexpr absl::Duration kBusyPatience = absl::Seconds(10);
}  // namespace

ExpertServer::ExpertServer(const ExpertServiceOptions& options)
    : options_(options),
      threads_(NumThreads(options.worker.n_threads), absl::Microseconds(options.worker.spin_us)) {}

ExpertServer::~ExpertServer() {
  if (meter_ != nullptr) meter_->StopWatching();
  if (shard_experts_ != nullptr) shard_experts_->Stop();  // or the loader would be waited for
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
  GF_RETURN_IF_ERROR(server->Assemble());
  GF_RETURN_IF_ERROR(server->Listen());
  GF_RETURN_IF_ERROR(server->Load());
  server->probes_->SetStarted();
  server->probes_->SetReady(true);
  return server;
}

absl::Status ExpertServer::OpenSources() {
  GF_ASSIGN_OR_RETURN(const LoadFrom from, ParseLoadFrom(options_.load_from));
  if (catalog_->weights() != nullptr) {
    checkpoint_experts_ = std::make_unique<CheckpointExperts>(catalog_->weights(), backend_.get());
  } else if (options_.experts != "none") {
    return absl::FailedPreconditionError(
        absl::StrCat("--experts is ", options_.experts, ", but ", options_.worker.model_dir,
                     " has no weights; with none a planner says which shards have them"));
  } else if (from == LoadFrom::kCheckpoint) {
    return absl::FailedPreconditionError(absl::StrCat(
        "--load-from is checkpoint, but ", options_.worker.model_dir, " has no weights"));
  }
  // Who has a certificate and no CA cannot tell who answers.
  const TlsOptions& tls = options_.worker.tls;
  const std::string why_not = options_.experts != "none" ? "the experts are fixed"
                              : !catalog_->has_digests()
                                  ? absl::StrCat("there is no ", kManifestFile, " to check them by")
                              : !tls.empty() && tls.ca_file.empty() ? "--tls-ca-file is missing"
                                                                    : "";
  if (why_not.empty() && from != LoadFrom::kCheckpoint) {
    ShardExperts::Options peers;
    if (checkpoint_experts_ == nullptr) peers.busy_patience = kBusyPatience;
    GF_ASSIGN_OR_RETURN(peers.channels.security, TransportSecurity::ForClient(tls));
    shard_experts_ =
        std::make_unique<ShardExperts>(catalog_.get(), backend_.get(), meter_.get(), peers);
  } else if (from == LoadFrom::kShards || checkpoint_experts_ == nullptr) {
    return absl::FailedPreconditionError(
        absl::StrCat("experts cannot be loaded from other shards: ", why_not));
  }
  LogEvent(LogLevel::kInfo, "loading_from",
           {{"checkpoint", checkpoint_experts_ != nullptr ? "yes" : "no"},
            {"shards", shard_experts_ != nullptr ? "yes" : "no"},
            {"because",
             why_not.empty() ? absl::StrCat("--load-from is ", options_.load_from) : why_not}});
  supply_ = std::make_unique<ExpertSupply>(from, checkpoint_experts_.get(), shard_experts_.get(),
                                           meter_.get());
  return absl::OkStatus();
}

absl::Status ExpertServer::Assemble() {
  GF_ASSIGN_OR_RETURN(catalog_,
                      ExpertCatalog::Open(options_.worker.model_dir, {options_.worker.n_slices}));
  const ModelConfig& config = catalog_->config();
  ExpertBackendOptions backend{
      .name = options_.backend, .dtype = catalog_->dtype(), .d_model = config.d_model};
  GF_ASSIGN_OR_RETURN(backend.weights, ParseWeightKind(options_.weights));
  GF_ASSIGN_OR_RETURN(backend_, ChooseExpertBackend(backend, &threads_));
  SetPayloadMemory(backend_->row_memory());
  store_ = std::make_unique<ExpertStore>(config, backend_.get());
  runner_ = std::make_unique<ExpertRunner>(store_.get());
  GF_ASSIGN_OR_RETURN(meter_, ExpertMeter::Create(*store_, options_));
  if (options_.metrics_per_expert) meter_->WatchExperts(runner_.get());
  meter_->WatchCertificate("listen", [security = security_] { return security.not_after(); });
  internal::v1::WorkerDescription worker =
      DescribeWorker(options_.worker, config, catalog_->model_fingerprint());
  worker.set_metrics_address(meter_->address());
  worker.set_numerics_class(backend_->numerics_class());
  worker.set_backend(backend_->name());
  worker.set_isa(backend_->device());
  GF_RETURN_IF_ERROR(OpenSources());
  service_ = std::make_unique<ExpertService>(runner_.get(), worker, meter_.get());
  ExpertSender::Options sending;
  sending.on_piece = [meter = meter_.get()] { meter->OnPieceSent(); };
  sender_ = std::make_unique<ExpertSender>(catalog_.get(), store_.get(), sending);
  service_->SetSender(sender_.get());
  if (options_.experts == "none") {
    GF_RETURN_IF_ERROR(CheckCapacity(options_.capacity_bytes, *catalog_, *backend_));
    ExpertLoader::Options loading;
    loading.capacity_bytes = CheckpointCapacity(options_.capacity_bytes, *catalog_, *backend_);
    loading.on_change = [this] { service_->Announce(); };
    loading.on_complete = [meter = meter_.get()](absl::Duration time) { meter->OnComplete(time); };
    loading.n_threads = options_.load_threads;
    loader_ = std::make_unique<ExpertLoader>(catalog_.get(), supply_.get(), store_.get(), loading);
    service_->SetLoader(loader_.get());
  }
  return absl::OkStatus();
}

absl::Status ExpertServer::Listen() {
  ServerOptions server_options;
  server_options.addresses = {options_.worker.listen};
  server_options.security = security_;
  server_options.authorize = PeerCheck();
  GF_ASSIGN_OR_RETURN(server_options.wait, ParseWaitPolicy(options_.wait));
  server_options.on_call_done = [meter = meter_.get()](const CallRecord& call) {
    meter->OnCallDone(call);
  };
  server_ = std::make_unique<RpcServer>(std::move(server_options));
  service_->Register(server_.get());
  health_.Register(server_.get());
  AddChannelz(server_.get());
  AddReflection(server_.get());
  health_.SetServing("liveness", true);
  for (const char* name : {"", "startup", "readiness", kServiceName}) {
    health_.SetServing(name, false);
  }
  return server_->Start();
}

absl::Status ExpertServer::Load() {
  const ModelConfig& config = catalog_->config();
  GF_ASSIGN_OR_RETURN(
      const std::vector<ExpertId> selected,
      ParseExpertSelection(options_.experts, config.n_layers, config.experts_per_layer()));
  if (!selected.empty()) GF_RETURN_IF_ERROR(LoadFixed(selected));
  service_->SetReady();
  for (const char* name : {"", "startup", "readiness", kServiceName}) {
    health_.SetServing(name, true);
  }
  return absl::OkStatus();
}

std::function<absl::Status(CallContext*)> ExpertServer::PeerCheck() const {
  const std::string& shards = options_.worker.tls.server_name;
  std::function<absl::Status(CallContext*)> check = security_.PeerCheck();
  if (check == nullptr || shards.empty()) return check;
  return [check = std::move(check), shards](CallContext* call) {
    const std::vector<std::string>& names = call->peer_names();
    const bool is_shard = std::find(names.begin(), names.end(), shards) != names.end();
    return is_shard && call->method() == kFetchMethod ? absl::OkStatus() : check(call);
  };
}

absl::Status ExpertServer::LoadFixed(const std::vector<ExpertId>& experts) {
  uint64_t bytes = 0;
  for (const ExpertId& id : experts) bytes += catalog_->ExpertBytes(id.layer, id.expert);
  LoadProgress progress({.label = "experts", .total_bytes = bytes});
  const absl::Time start = absl::Now();
  GF_RETURN_IF_ERROR(checkpoint_experts_->Fill(experts, &threads_, &progress, store_.get()));
  progress.Finish();
  meter_->OnFixedLoaded(experts.size(), bytes, absl::Now() - start);
  LogEvent(LogLevel::kInfo, "experts_loaded",
           {{"experts", experts.size()},
            {"bytes", store_->loaded_bytes()},
            {"seconds", absl::ToDoubleSeconds(absl::Now() - start)}});
  return absl::OkStatus();
}

std::string ExpertServer::metrics_address() const { return meter_->address(); }

// That no call comes says nothing of the next one.
bool ExpertServer::IsNeeded() const {
  return loader_ != nullptr && loader_->epoch() > 0 && !store_->Held().empty();
}

void ExpertServer::Drain() {
  const absl::Time start = absl::Now();
  service_->SetDraining();
  health_.SetServing("readiness", false);
  probes_->SetReady(false);
  LogEvent(LogLevel::kInfo, "draining", {{"address", address()}});
  // Routers move over within one look at the description; then no call comes any more.
  // Who calls, watches, but for the time in which a router starts again or cannot reach the shard.
  const absl::Time end = start + options_.drain_limit;
  absl::Time watched = start, now = start;
  bool is_over = false;
  while (now < end && !is_over) {
    absl::SleepFor(std::min(absl::Milliseconds(20), end - now));
    now = absl::Now();
    if (service_->n_watchers() > 0) watched = now;
    is_over = now >= std::max(start, meter_->last_call()) + options_.drain_quiet &&
              (!IsNeeded() || now >= watched + options_.drain_unwatched);
  }
  if (!is_over && IsNeeded()) {
    LogEvent(LogLevel::kWarning, "drain_limit_reached",
             {{"experts", store_->Held().size()},
              {"seconds", absl::ToDoubleSeconds(options_.drain_limit)}});
  }
  service_->EndWatches();  // or they would have to be waited for
  server_->Shutdown(absl::Seconds(1));
}

}  // namespace gatefold
