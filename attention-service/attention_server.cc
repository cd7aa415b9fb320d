#include "attention-service/attention_server.h"

#include <utility>

#include "absl/time/clock.h"
#include "attention-service/attention_meter.h"
#include "gatefold/base/log.h"
#include "gatefold/base/status_macros.h"
#include "gatefold/rpc/channelz.h"
#include "gatefold/rpc/payload_buffer.h"
#include "gatefold/rpc/reflection.h"
#include "gatefold/worker/metrics_host.h"

namespace gatefold {

AttentionServer::AttentionServer(const AttentionServiceOptions& options)
    : options_(options),
      threads_(NumThreads(options.worker.n_threads), absl::Microseconds(options.worker.spin_us)) {}

AttentionServer::~AttentionServer() {
  if (meter_ != nullptr) meter_->StopWatching();
  if (server_ != nullptr) server_->Shutdown(absl::ZeroDuration());
}

absl::StatusOr<std::unique_ptr<AttentionServer>> AttentionServer::Start(
    const AttentionServiceOptions& options) {
  GF_RETURN_IF_ERROR(options.Validate());
  GF_ASSIGN_OR_RETURN(TransportSecurity security, TransportSecurity::ForServer(options.worker.tls));
  std::unique_ptr<AttentionServer> server(new AttentionServer(options));
  GF_ASSIGN_OR_RETURN(server->probes_, HealthListener::Start(MetricsHost(options.worker.listen),
                                                             options.worker.health_port));
  server->security_ = std::move(security);
  // Before the weights: who loads for long is not to be taken for one that is down.
  GF_ASSIGN_OR_RETURN(server->meter_, AttentionMeter::Create(options));
  GF_RETURN_IF_ERROR(server->Load());
  GF_RETURN_IF_ERROR(server->Listen());
  server->probes_->SetStarted();
  server->probes_->SetReady(true);
  return server;
}

absl::Status AttentionServer::Load() {
  GF_ASSIGN_OR_RETURN(weights_,
                      ModelWeights::Open(options_.worker.model_dir, {options_.worker.n_slices}));
  LoadProgress progress({.label = "attention", .total_bytes = weights_->role_bytes().attention});
  GF_ASSIGN_OR_RETURN(host_, AttentionHost::Load(*weights_, options_.host, &threads_, &progress));
  progress.Finish();
  SetPayloadMemory(host_->backend().row_memory());
  return absl::OkStatus();
}

absl::Status AttentionServer::Listen() {
  meter_->Watch(host_.get());
  meter_->WatchCertificate("listen", [security = security_] { return security.not_after(); });
  internal::v1::WorkerDescription worker = DescribeWorker(options_.worker, *weights_);
  worker.set_numerics_class(host_->backend().numerics_class());
  worker.set_backend(host_->backend().name());
  worker.set_isa(host_->backend().device());
  worker.set_metrics_address(meter_->address());
  service_ = std::make_unique<AttentionService>(host_.get(), worker, meter_.get());
  meter_->WatchSequences([service = service_.get()] { return service->n_sequences(); });

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
  AddChannelz(server_.get());
  AddReflection(server_.get());
  for (const char* name :
       {"", "startup", "readiness", "liveness", "gatefold.internal.v1.AttentionService"}) {
    health_.SetServing(name, true);
  }
  return server_->Start();
}

std::string AttentionServer::metrics_address() const { return meter_->address(); }

void AttentionServer::Drain() {
  service_->SetDraining();
  health_.SetServing("readiness", false);
  probes_->SetReady(false);
  LogEvent(LogLevel::kInfo, "draining",
           {{"address", address()}, {"sequences", service_->n_sequences()}});
  const absl::Time limit = absl::Now() + options_.drain_limit;
  while (service_->n_sequences() > 0 && absl::Now() < limit) {
    absl::SleepFor(absl::Milliseconds(20));
  }
  server_->Shutdown(absl::Seconds(1));
}

}  // namespace gatefold
