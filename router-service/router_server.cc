#include "router-service/router_server.h"

#include <algorithm>
#include <thread>
#include <utility>

#include "absl/synchronization/notification.h"
#include "gatefold/base/log.h"
#include "gatefold/base/status_macros.h"
#include "gatefold/rpc/reflection.h"
#include "router-service/gateway/gateway_service.h"
#include "router-service/gateway/tokenizer_codec.h"
#include "router-service/router_meter.h"

namespace gatefold {
namespace {

// What gRPC refuses is RESOURCE_EXHAUSTED, as if it could be tried again. Up to here a request that
// is too large is taken in, though not parsed, and told to be an INVALID_ARGUMENT.
constexpr int64_t kLargestTakenIn = 16 << 20;
// Requests that come in, and answers that go out, at the same time. Those of honest callers are
// there in a moment.
constexpr int64_t kMaxBytesOnTheirWay = 256 << 20;

}  // namespace

absl::StatusOr<std::unique_ptr<RouterServer>> RouterServer::Start(const RouterOptions& options,
                                                                  const ModelWeights& weights,
                                                                  ThreadPool* threads,
                                                                  const RouterDoors& doors,
                                                                  RouterMeter* meter) {
  std::unique_ptr<RouterServer> router(new RouterServer(options, meter));
  GF_RETURN_IF_ERROR(router->StartScheduler(weights, threads, doors));
  GF_RETURN_IF_ERROR(router->StartGateway(weights, doors));
  GF_RETURN_IF_ERROR(router->Listen(doors));
  return router;
}

absl::Status RouterServer::StartScheduler(const ModelWeights& weights, ThreadPool* threads,
                                          const RouterDoors& doors) {
  GF_ASSIGN_OR_RETURN(model_, RouterModel::Load(weights));
  std::vector<LaneEngine> engines;
  for (int lane = 0; lane < options_.n_lanes; ++lane) {
    LaneEngine& engine = engines.emplace_back();
    GF_ASSIGN_OR_RETURN(engine.attention, doors.attention(lane));
    GF_ASSIGN_OR_RETURN(engine.experts, doors.experts(lane));
    std::unique_ptr<StepRows> rows =
        doors.rows != nullptr ? doors.rows(lane)
                              : MakeHostRows(model_.get(), threads, options_.WireDType());
    engine.loop = std::make_unique<StepLoop>(model_->config(), engine.attention.get(),
                                             engine.experts.get(), std::move(rows));
  }
  SchedulerOptions scheduler = options_.scheduler;
  scheduler.max_sequence_tokens = doors.max_sequence_tokens;
  scheduler.max_step_tokens = options_.MaxStepTokens(weights.config());
  scheduler.fail_on_missing_expert = options_.on_missing_expert == "fail";
  GF_ASSIGN_OR_RETURN(scheduler_, Scheduler::Create(scheduler, std::move(engines), meter_));
  return absl::OkStatus();
}

absl::Status RouterServer::StartGateway(const ModelWeights& weights, const RouterDoors& doors) {
  ModelInfo info = MakeModelInfo(options_.ModelName(), weights.Fingerprint(), weights.config());
  info.weight_dtype = std::string(DTypeName(weights.expert_dtype()));
  info.parameters = weights.n_parameters();
  info.active_parameters = weights.n_active_parameters();
  Gateway::Dependencies deps;
  GF_ASSIGN_OR_RETURN(deps.codec, LoadTokenizerCodec(options_.worker.model_dir));
  info.has_chat_template = deps.codec != nullptr && deps.codec->has_chat_template();
  deps.service = scheduler_.get();
  deps.cluster = doors.cluster;
  deps.observer = meter_;
  GF_ASSIGN_OR_RETURN(gateway_, Gateway::Create(options_.gateway, std::move(info), deps));
  return absl::OkStatus();
}

absl::Status RouterServer::Listen(const RouterDoors& doors) {
  ServerOptions server_options = options_.GuardedServer();
  if (!options_.worker.listen.empty()) server_options.addresses = {options_.worker.listen};
  server_options.max_request_bytes = static_cast<int>(std::min<int64_t>(
      kMaxMessageBytes, std::max(kLargestTakenIn, gateway_->max_request_bytes())));
  server_options.max_unread_bytes = kMaxBytesOnTheirWay;
  server_options.max_untaken_bytes = kMaxBytesOnTheirWay;
  server_options.strict_pings = true;
  server_options.max_connection_age = options_.max_connection_age;
  server_options.on_call_done = [meter = meter_](const CallRecord& call) {
    meter->OnCallDone(call);
  };
  meter_->Watch(scheduler_.get());
  meter_->WatchCertificate("listen",
                           [security = options_.security] { return security.not_after(); });
  server_ = std::make_unique<RpcServer>(std::move(server_options));
  AddInferenceService(server_.get(), gateway_.get());
  AddModelService(server_.get(), gateway_.get());
  watch_ = std::make_unique<ClusterWatch>(doors.cluster);
  const ClusterServiceParts cluster = {doors.cluster, watch_.get(), meter_, gateway_.get()};
  AddClusterService(server_.get(), cluster);
  health_.Register(server_.get());
  AddReflection(server_.get());
  for (const std::string& name : server_->ServiceNames()) health_.SetServing(name, true);
  for (const char* name : {"", "startup", "readiness", "liveness"}) health_.SetServing(name, true);
  GF_RETURN_IF_ERROR(server_->Start());
  if (options_.admin_listen.empty()) return absl::OkStatus();
  ServerOptions admin_options = options_.GuardedServer();
  admin_options.addresses = {options_.admin_listen};
  admin_options.on_call_done = [meter = meter_](const CallRecord& call) {
    meter->OnCallDone(call);
  };
  GF_ASSIGN_OR_RETURN(
      admin_, AdminServer::Start(std::move(admin_options), cluster, gateway_.get(), doors.admin));
  return absl::OkStatus();
}

RouterServer::~RouterServer() {
  meter_->StopWatching();
  admin_.reset();
  if (server_ != nullptr) server_->Shutdown(absl::ZeroDuration());
  server_.reset();
  watch_.reset();
  // Lanes may be in the middle of a call to a request whose stream has ended, and requests refer to
  // the gateway. The scheduler itself goes last: requests hold handles of it.
  if (scheduler_ != nullptr) scheduler_->Stop();
  gateway_.reset();
  scheduler_.reset();
}

std::string RouterServer::address() const {
  return options_.worker.listen.empty() ? "" : server_->address();
}

void RouterServer::Drain() {
  health_.SetAllNotServing();
  LogEvent(LogLevel::kInfo, "draining", {{"running", load().n_running}});
  // Connections end first, so that callers who keep one go to another router with their next
  // request; were it refused here instead, they would be refused again and again while a long
  // stream ends.
  absl::Notification quiet;
  static constexpr absl::Duration kLastStep = absl::Seconds(5);
  std::thread leave([this, &quiet] {
    server_->Shutdown(options_.drain_limit + kLastStep);
    quiet.Notify();
  });
  // Before the server cancels what is left, which ends it without a reason. A step under way is
  // finished first.
  if (!quiet.WaitForNotificationWithTimeout(options_.drain_limit)) scheduler_->Stop();
  leave.join();
}

}  // namespace gatefold
