#include "cli/local_router.h"

#include <atomic>
#include <cstdio>
#include <utility>
#include <vector>

#include "absl/strings/str_cat.h"
#include "absl/time/time.h"
#include "attention-service/attention_host.h"
#include "attention-service/local_attention_client.h"
#include "cli/local_view.h"
#include "expert-service/checkpoint_experts.h"
#include "expert-service/expert_selection.h"
#include "expert-service/local_expert_client.h"
#include "expert-service/resident_expert_client.h"
#include "gatefold/base/log.h"
#include "gatefold/base/status_macros.h"
#include "gatefold/engine/device_rows.h"
#include "router-service/router_meter.h"
#include "router-service/router_server.h"

namespace gatefold {
namespace {

// Where rows stay on a device and its memory is ample: kDeviceSpareBytes are left for attention and
// for what calls take when they need it, most of it parts of long contexts.
constexpr int kDeviceStepTokens = 2048;
constexpr size_t kDeviceSpareBytes = size_t{1} << 30;

RouterOptions ToRouterOptions(const LocalRouterOptions& local) {
  RouterOptions options;
  options.worker.model_dir = local.model_dir;
  options.worker.listen = local.listen_address;
  options.security = local.security;
  options.api_keys = local.api_keys;
  options.worker.n_threads = local.n_threads;
  options.worker.isa = local.isa;
  options.worker.n_slices = local.n_slices;
  options.worker.metrics_port = local.metrics_port;
  // Nobody else needs the cores while a step is under way.
  options.worker.spin_us = 200;
  options.model_name = local.model_name;
  options.n_lanes = local.n_lanes;
  options.wire_dtype = local.wire_dtype;
  options.drain_limit = local.drain_limit;
  if (local.max_step_tokens > 0) options.scheduler.max_step_tokens = local.max_step_tokens;
  options.scheduler.max_running = local.max_running;
  options.scheduler.max_waiting = local.max_waiting;
  return options;
}

class LocalRouterImplementation final : public LocalRouter {
 public:
  explicit LocalRouterImplementation(const RouterOptions& options)
      : options_(options),
        threads_(NumThreads(options.worker.n_threads), absl::Microseconds(options.worker.spin_us)) {
  }
  ~LocalRouterImplementation() override { server_.reset(); }

  absl::Status Load(const LocalRouterOptions& local) {
    GF_ASSIGN_OR_RETURN(weights_, ModelWeights::Open(local.model_dir, {local.n_slices}));
    const ModelConfig& config = weights_->config();
    const RoleBytes& bytes = weights_->role_bytes();
    LoadProgress::Options progress_options;
    progress_options.label = "weights";
    progress_options.total_bytes = bytes.attention + bytes.experts;
    // Whatever is logged: it is for whoever waits.
    progress_options.write = [shown = local.show_load_progress](absl::string_view text) {
      if (shown) std::fwrite(text.data(), 1, text.size(), stderr);
    };
    LoadProgress progress(progress_options);
    AttentionHostOptions host_options;
    host_options.backend = local.backend;
    host_options.kv_memory_bytes = local.kv_memory_bytes;
    host_options.prefix_cache = local.prefix_cache;
    GF_ASSIGN_OR_RETURN(host_, AttentionHost::Load(*weights_, host_options, &threads_, &progress));
    GF_ASSIGN_OR_RETURN(backend_, ChooseBackend(local));
    store_ = std::make_unique<ExpertStore>(config, backend_.get());
    GF_ASSIGN_OR_RETURN(const std::vector<ExpertId> all,
                        ParseExpertSelection("all", config.n_layers, config.experts_per_layer()));
    CheckpointExperts checkpoint(weights_.get(), backend_.get());
    GF_RETURN_IF_ERROR(checkpoint.Fill(all, &threads_, &progress, store_.get()));
    progress.Finish();
    if (local.show_load_progress &&
        (backend_->name() != "cpu" || host_->backend().name() != "cpu")) {
      std::fprintf(stderr, "computing on %s\n", Device().c_str());
    }
    runner_ = std::make_unique<ExpertRunner>(store_.get());
    if (backend_->name() != "cuda" || host_->backend().name() != "cuda") return absl::OkStatus();
    // There the rows of a long prompt are computed faster the more of them come together.
    const int usual = options_.scheduler.max_step_tokens;
    const bool may_choose = local.max_step_tokens == 0;
    absl::Status stays = may_choose ? KeepRowsOnDevice(kDeviceStepTokens, kDeviceSpareBytes)
                                    : KeepRowsOnDevice(usual, 0);
    if (may_choose && absl::IsResourceExhausted(stays)) {
      LogEvent(LogLevel::kInfo, "short_steps",
               {{"max_step_tokens", absl::StrCat(usual)}, {"why", stays.message()}});
      stays = KeepRowsOnDevice(usual, 0);
    }
    if (!absl::IsFailedPrecondition(stays) && !absl::IsResourceExhausted(stays)) return stays;
    LogEvent(LogLevel::kWarning, "rows_leave_device", {{"why", stays.message()}});
    return absl::OkStatus();
  }

  absl::Status Serve() {
    GF_ASSIGN_OR_RETURN(meter_, RouterMeter::Create(options_, backend_->name(), Device()));
    view_ =
        std::make_unique<LocalView>(options_.ModelName(), Device(), weights_.get(), host_->cache(),
                                    runner_.get(), resident_.get(), &n_sequences_, meter_.get());
    RouterDoors doors;
    doors.attention = [this](int) -> absl::StatusOr<std::unique_ptr<AttentionClient>> {
      return std::make_unique<LocalAttentionClient>(host_->runner(), &n_sequences_);
    };
    doors.experts = [this](int) -> absl::StatusOr<std::unique_ptr<ExpertClient>> {
      if (resident_ != nullptr) return std::make_unique<ResidentExpertClient>(resident_.get());
      return std::make_unique<LocalExpertClient>(runner_.get());
    };
    if (resident_ != nullptr) {
      doors.rows = [this](int lane) { return std::move(rows_[lane]); };
    }
    doors.max_sequence_tokens = host_->max_sequence_tokens();
    doors.cluster = view_.get();
    GF_ASSIGN_OR_RETURN(server_,
                        RouterServer::Start(options_, *weights_, &threads_, doors, meter_.get()));
    return absl::OkStatus();
  }

  void Drain() override { server_->Drain(); }
  std::shared_ptr<grpc::Channel> channel() override { return server_->InProcessChannel(); }
  std::string listen_address() const override { return server_->address(); }
  std::string metrics_address() const override { return meter_->address(); }

 private:
  // For people: what computes; both, where experts and attention are apart.
  std::string Device() const {
    const std::string experts = backend_->device(), attention = host_->backend().device();
    if (host_->backend().name() == backend_->name()) return experts;
    return absl::StrCat(experts, ", attention on ", attention);
  }

  // Attention and experts are on one device: rows need not leave it, and the gate is there as well.
  // max_step_tokens: of the steps from now on; spare_bytes: to be left on the device.
  // FailedPrecondition or ResourceExhausted where rows must leave it.
  absl::Status KeepRowsOnDevice(int max_step_tokens, size_t spare_bytes) {
    const ModelConfig& config = weights_->config();
    RouterOptions options = options_;
    options.scheduler.max_step_tokens = max_step_tokens;
    const int max_rows = options.MaxStepTokens(config);
    CudaStream* const stream = host_->backend().device_stream();
    GF_ASSIGN_OR_RETURN(const std::unique_ptr<RouterModel> model, RouterModel::Load(*weights_));
    GF_ASSIGN_OR_RETURN(auto gate, MakeDeviceRouter(*model, options_.WireDType(), stream));
    std::vector<std::unique_ptr<StepRows>> rows(options_.n_lanes);
    for (auto& of_lane : rows) {
      GF_ASSIGN_OR_RETURN(of_lane, gate->MakeRows(max_rows));
    }
    std::vector<std::vector<std::shared_ptr<const HeldExpert>>> experts(config.n_layers);
    for (const ExpertId& id : store_->Held()) experts[id.layer].push_back(store_->Find(id));
    GF_ASSIGN_OR_RETURN(auto resident,
                        backend_->Reside(std::move(experts), config.experts_per_row(), max_rows,
                                         spare_bytes, stream));
    GF_RETURN_IF_ERROR(host_->backend().KeepRowsOnDevice(max_rows));
    options_ = std::move(options);
    resident_ = std::move(resident);
    gate_ = std::move(gate);
    rows_ = std::move(rows);
    return absl::OkStatus();
  }

  // Of the experts, once attention is where it is.
  absl::StatusOr<std::unique_ptr<ExpertBackend>> ChooseBackend(const LocalRouterOptions& local) {
    const ModelConfig& config = weights_->config();
    ExpertBackendOptions options = {.name = local.backend,
                                    .weights = local.weights,
                                    .dtype = weights_->expert_dtype(),
                                    .d_model = config.d_model};
    for (int layer = 0; layer < config.n_layers; ++layer) {
      for (int expert = 0; expert < config.experts_per_layer(); ++expert) {
        options.experts.push_back(ExpertLayout::Of(weights_->Expert(layer, expert)).sizes());
      }
    }
    return ChooseExpertBackend(options, &threads_);
  }

  RouterOptions options_;
  ThreadPool threads_;
  std::unique_ptr<ModelWeights> weights_;
  std::unique_ptr<AttentionHost> host_;
  std::unique_ptr<ExpertBackend> backend_;
  std::unique_ptr<ExpertStore> store_;
  std::unique_ptr<ExpertRunner> runner_;
  // Where rows stay on a device: its experts, its gate, and each lane's rows until the lane has
  // them; else null.
  std::unique_ptr<ResidentExperts> resident_;
  std::unique_ptr<DeviceRouter> gate_;
  std::vector<std::unique_ptr<StepRows>> rows_;
  std::atomic<int> n_sequences_{0};  // that are open, over all lanes
  std::unique_ptr<RouterMeter> meter_;
  std::unique_ptr<LocalView> view_;
  std::unique_ptr<RouterServer> server_;
};

}  // namespace

absl::StatusOr<std::unique_ptr<LocalRouter>> LocalRouter::Start(const LocalRouterOptions& options) {
  const RouterOptions router_options = ToRouterOptions(options);
  GF_RETURN_IF_ERROR(router_options.Validate());
  auto router = std::make_unique<LocalRouterImplementation>(router_options);
  GF_RETURN_IF_ERROR(router->Load(options));
  GF_RETURN_IF_ERROR(router->Serve());
  return router;
}

}  // namespace gatefold
