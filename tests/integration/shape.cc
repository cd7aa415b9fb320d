#include "tests/integration/shape.h"

#include <utility>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_join.h"
#include "absl/time/clock.h"
#include "cli/local_router.h"
#include "expert-service/expert_backend.h"
#include "gatefold/base/status_macros.h"
#include "gatefold/worker/worker.h"
#include "grpcpp/create_channel.h"

namespace gatefold {
namespace {

constexpr absl::Duration kStartLimit = absl::Seconds(60);

class LocalShape final : public Shape {
 public:
  explicit LocalShape(std::unique_ptr<LocalRouter> router) : router_(std::move(router)) {}
  std::shared_ptr<grpc::Channel> channel(int) override { return router_->channel(); }

 private:
  std::unique_ptr<LocalRouter> router_;
};

absl::StatusOr<std::unique_ptr<Shape>> StartLocal(const std::string& model_dir,
                                                  const ShapeOptions& options) {
  LocalRouterOptions local;
  local.model_dir = model_dir;
  local.n_threads = options.n_threads;
  local.n_lanes = options.n_lanes;
  local.max_step_tokens = options.max_step_tokens;
  local.isa = options.isa;
  local.backend = options.backend;
  local.wire_dtype = options.wire_dtype;
  GF_ASSIGN_OR_RETURN(local.weights, ParseWeightKind(options.weights));
  GF_ASSIGN_OR_RETURN(local.kv_memory_bytes, ParseBytes("kv_memory", options.kv_memory));
  local.prefix_cache = options.prefix_cache;
  local.show_load_progress = false;
  GF_ASSIGN_OR_RETURN(auto router, LocalRouter::Start(local));
  return std::make_unique<LocalShape>(std::move(router));
}

class ProcessShape final : public Shape {
 public:
  absl::Status Launch(const std::string& model_dir, const ShapeOptions& options) {
    common_ = {absl::StrCat("--model=", model_dir), absl::StrCat("--threads=", options.n_threads),
               absl::StrCat("--isa=", options.isa),
               absl::StrCat("--metrics-port=", options.metrics ? 0 : -1)};
    kv_ = {absl::StrCat("--kv-memory=", options.kv_memory),
           absl::StrCat("--prefix-cache=", options.prefix_cache ? "on" : "off")};
    GF_RETURN_IF_ERROR(LaunchExperts(options));
    GF_RETURN_IF_ERROR(LaunchAttention(options));
    return LaunchRouters(options);
  }

  std::shared_ptr<grpc::Channel> channel(int index) override { return channels_[index]; }
  Process* expert(int index) override { return experts_[index].get(); }
  absl::Status StartExpert(int index) override {
    GF_ASSIGN_OR_RETURN(experts_[index],
                        Process::Start("expert-service", expert_args_[index],
                                       folder_.Path(absl::StrCat("expert-", index, ".log"))));
    return absl::OkStatus();
  }
  FaultProxy* proxy(int index) override { return proxies_[index].get(); }
  FaultProxy* attention_proxy(int index) override { return attention_proxies_[index].get(); }
  std::string expert_address(int index) override { return addresses_[index]; }
  Process* attention(int index) override { return attention_[index].get(); }
  std::string attention_address(int index) override { return attention_addresses_[index]; }
  Process* router(int index) override { return routers_[index].get(); }
  Process* planner() override { return planner_.get(); }

 private:
  absl::Status LaunchExperts(const ShapeOptions& options) {
    for (size_t i = 0; i < options.experts.size(); ++i) {
      const int index = static_cast<int>(i);
      const std::string path = folder_.Path(absl::StrCat("expert-", i));
      std::vector<std::string>& args = expert_args_.emplace_back(common_);
      if (const auto model = options.models.find(index); model != options.models.end()) {
        args[0] = absl::StrCat("--model=", model->second);
      }
      args.push_back(absl::StrCat("--experts=", options.experts[i]));
      args.push_back(absl::StrCat("--backend=", options.backend));
      args.push_back(absl::StrCat("--weights=", options.weights));
      args.push_back(absl::StrCat("--listen=unix:", path));
      if (const auto flags = options.expert_flags.find(index);
          flags != options.expert_flags.end()) {
        args.insert(args.end(), flags->second.begin(), flags->second.end());
      }
      addresses_.push_back(absl::StrCat("unix:", path));
      if (!options.proxied) continue;
      const std::string proxy_path = folder_.Path(absl::StrCat("proxy-", i));
      addresses_.back() = absl::StrCat("unix:", proxy_path);
      GF_ASSIGN_OR_RETURN(proxies_.emplace_back(), FaultProxy::Start(proxy_path, path));
    }
    experts_.resize(options.experts.size());
    const size_t n_started = options.n_started < 0 ? experts_.size() : options.n_started;
    for (size_t i = 0; i < n_started; ++i) GF_RETURN_IF_ERROR(StartExpert(static_cast<int>(i)));
    return absl::OkStatus();
  }

  absl::Status LaunchAttention(const ShapeOptions& options) {
    attention_addresses_ = options.attention_addresses;
    if (options.kind == ShapeOptions::Kind::kColocated) return absl::OkStatus();
    for (int i = 0; i < options.n_attention; ++i) {
      const std::string path = folder_.Path(absl::StrCat("attention-", i));
      attention_addresses_.push_back(absl::StrCat("unix:", path));
      std::vector<std::string> args = common_;
      args.push_back(absl::StrCat("--listen=", attention_addresses_.back()));
      args.push_back(absl::StrCat("--backend=", options.attention_backend));
      args.insert(args.end(), kv_.begin(), kv_.end());
      if (options.proxied_attention) {
        attention_addresses_.back() += "-proxy";
        GF_ASSIGN_OR_RETURN(attention_proxies_.emplace_back(),
                            FaultProxy::Start(path + "-proxy", path));
      }
      GF_ASSIGN_OR_RETURN(attention_.emplace_back(),
                          Process::Start("attention-service", args, path + ".log"));
    }
    return absl::OkStatus();
  }

  // And the planner. Until all routers are ready.
  absl::Status LaunchRouters(const ShapeOptions& options) {
    const bool colocated = options.kind == ShapeOptions::Kind::kColocated;
    std::vector<std::string> workers = common_;
    workers.push_back(absl::StrCat("--experts=", absl::StrJoin(addresses_, ",")));
    workers.push_back(colocated
                          ? "--colocated"
                          : absl::StrCat("--attention=", absl::StrJoin(attention_addresses_, ",")));
    if (!options.planner_flags.empty()) {
      std::vector<std::string> args = workers;
      args.push_back("--planner=only");
      args.insert(args.end(), options.planner_flags.begin(), options.planner_flags.end());
      GF_ASSIGN_OR_RETURN(planner_,
                          Process::Start("router-service", args, folder_.Path("planner.log")));
    }
    if (colocated) workers.insert(workers.end(), kv_.begin(), kv_.end());
    workers.push_back(absl::StrCat("--lanes=", options.n_lanes));
    workers.push_back(absl::StrCat("--max-step-tokens=", options.max_step_tokens));
    workers.push_back(absl::StrCat("--wire-dtype=", options.wire_dtype));
    workers.insert(workers.end(), options.router_flags.begin(), options.router_flags.end());
    grpc::ChannelArguments again;  // soon, if a router has to be started again
    again.SetInt(GRPC_ARG_INITIAL_RECONNECT_BACKOFF_MS, 100);
    again.SetInt(GRPC_ARG_MAX_RECONNECT_BACKOFF_MS, 200);
    for (int i = 0; i < options.n_routers; ++i) {
      const std::string path = folder_.Path(absl::StrCat("router-", i));
      const std::string address = absl::StrCat("unix:", path);
      std::vector<std::string> args = workers;
      args.push_back(absl::StrCat("--listen=", address));
      GF_ASSIGN_OR_RETURN(routers_.emplace_back(),
                          Process::Start("router-service", args, path + ".log"));
      channels_.push_back(
          grpc::CreateCustomChannel(address, grpc::InsecureChannelCredentials(), again));
    }
    for (const auto& router : routers_) {
      GF_RETURN_IF_ERROR(router->AwaitLine("ready", absl::Now() + kStartLimit).status());
    }
    return absl::OkStatus();
  }

  std::vector<std::string> common_, kv_;  // flags of all, and of who has a KV cache
  TemporaryFolder folder_;
  std::vector<std::unique_ptr<FaultProxy>> proxies_, attention_proxies_;
  std::vector<std::string> addresses_;  // of experts, as the router is told
  std::vector<std::vector<std::string>> expert_args_;
  std::vector<std::unique_ptr<Process>> experts_;  // null: not started
  std::vector<std::unique_ptr<Process>> attention_;
  std::vector<std::string> attention_addresses_;
  std::unique_ptr<Process> planner_;
  std::vector<std::unique_ptr<Process>> routers_;
  std::vector<std::shared_ptr<grpc::Channel>> channels_;
};

}  // namespace

const char* ShapeName(ShapeOptions::Kind kind) {
  switch (kind) {
    case ShapeOptions::Kind::kLocal:
      return "local";
    case ShapeOptions::Kind::kColocated:
      return "colocated";
    case ShapeOptions::Kind::kCluster:
      return "cluster";
  }
  return "unknown";
}

absl::StatusOr<std::unique_ptr<Shape>> Shape::Start(const std::string& model_dir,
                                                    const ShapeOptions& options) {
  if (options.kind == ShapeOptions::Kind::kLocal) return StartLocal(model_dir, options);
  auto shape = std::make_unique<ProcessShape>();
  GF_RETURN_IF_ERROR(shape->Launch(model_dir, options));
  return shape;
}

}  // namespace gatefold
