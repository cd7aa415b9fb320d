#include "tests/integration/shape.h"

#include <utility>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_join.h"
#include "absl/time/clock.h"
#include "cli/local_router.h"
#include "gatefold/base/status_macros.h"
#include "gatefold/worker/worker.h"
#include "grpcpp/create_channel.h"

namespace gatefold {
namespace {

constexpr absl::Duration kStartLimit = absl::Seconds(60);

class LocalShape final : public Shape {
 public:
  explicit LocalShape(std::unique_ptr<LocalRouter> router) : router_(std::move(router)) {}
  std::shared_ptr<grpc::Channel> channel() override { return router_->channel(); }

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
  local.wire_dtype = options.wire_dtype;
  GF_ASSIGN_OR_RETURN(local.kv_memory_bytes, ParseBytes(options.kv_memory));
  local.prefix_cache = options.prefix_cache;
  local.show_load_progress = false;
  GF_ASSIGN_OR_RETURN(auto router, LocalRouter::Start(local));
  return std::make_unique<LocalShape>(std::move(router));
}

class ProcessShape final : public Shape {
 public:
  absl::Status Launch(const std::string& model_dir, const ShapeOptions& options) {
    const bool colocated = options.kind == ShapeOptions::Kind::kColocated;
    const std::vector<std::string> common = {
        absl::StrCat("--model=", model_dir), absl::StrCat("--threads=", options.n_threads),
        absl::StrCat("--isa=", options.isa),
        absl::StrCat("--metrics-port=", options.metrics ? 0 : -1)};
    for (size_t i = 0; i < options.experts.size(); ++i) {
      const std::string path = folder_.Path(absl::StrCat("expert-", i));
      expert_args_.push_back(common);
      expert_args_.back().push_back(absl::StrCat("--experts=", options.experts[i]));
      expert_args_.back().push_back(absl::StrCat("--backend=", options.backend));
      expert_args_.back().push_back(absl::StrCat("--listen=unix:", path));
      addresses_.push_back(absl::StrCat("unix:", path));
      if (!options.proxied) continue;
      const std::string proxy_path = folder_.Path(absl::StrCat("proxy-", i));
      addresses_.back() = absl::StrCat("unix:", proxy_path);
      GF_ASSIGN_OR_RETURN(proxies_.emplace_back(), FaultProxy::Start(proxy_path, path));
    }
    experts_.resize(options.experts.size());
    const size_t n_started = options.n_started < 0 ? experts_.size() : options.n_started;
    for (size_t i = 0; i < n_started; ++i) GF_RETURN_IF_ERROR(StartExpert(static_cast<int>(i)));
    const std::vector<std::string> kv = {
        absl::StrCat("--kv-memory=", options.kv_memory),
        absl::StrCat("--prefix-cache=", options.prefix_cache ? "on" : "off")};
    std::vector<std::string> attention;
    for (int i = 0; i < options.n_attention && !colocated; ++i) {
      attention.push_back(absl::StrCat("unix:", folder_.Path(absl::StrCat("attention-", i))));
      std::vector<std::string> args = common;
      args.push_back(absl::StrCat("--listen=", attention.back()));
      args.insert(args.end(), kv.begin(), kv.end());
      GF_ASSIGN_OR_RETURN(attention_.emplace_back(),
                          Process::Start("attention-service", args,
                                         folder_.Path(absl::StrCat("attention-", i, ".log"))));
    }
    const std::string router = absl::StrCat("unix:", folder_.Path("router"));
    std::vector<std::string> args = common;
    args.push_back(absl::StrCat("--listen=", router));
    args.push_back(absl::StrCat("--experts=", absl::StrJoin(addresses_, ",")));
    args.push_back(colocated ? "--colocated"
                             : absl::StrCat("--attention=", absl::StrJoin(attention, ",")));
    if (colocated) args.insert(args.end(), kv.begin(), kv.end());
    args.push_back(absl::StrCat("--lanes=", options.n_lanes));
    args.push_back(absl::StrCat("--max-step-tokens=", options.max_step_tokens));
    args.push_back(absl::StrCat("--wire-dtype=", options.wire_dtype));
    args.insert(args.end(), options.router_flags.begin(), options.router_flags.end());
    GF_ASSIGN_OR_RETURN(router_,
                        Process::Start("router-service", args, folder_.Path("router.log")));
    GF_RETURN_IF_ERROR(router_->AwaitLine("ready", absl::Now() + kStartLimit).status());
    channel_ = grpc::CreateChannel(router, grpc::InsecureChannelCredentials());
    return absl::OkStatus();
  }

  std::shared_ptr<grpc::Channel> channel() override { return channel_; }
  Process* expert(int index) override { return experts_[index].get(); }
  absl::Status StartExpert(int index) override {
    GF_ASSIGN_OR_RETURN(experts_[index],
                        Process::Start("expert-service", expert_args_[index],
                                       folder_.Path(absl::StrCat("expert-", index, ".log"))));
    return absl::OkStatus();
  }
  FaultProxy* proxy(int index) override { return proxies_[index].get(); }
  std::string expert_address(int index) override { return addresses_[index]; }
  Process* attention(int index) override { return attention_[index].get(); }
  Process* router() override { return router_.get(); }

 private:
  TemporaryFolder folder_;
  std::vector<std::unique_ptr<FaultProxy>> proxies_;
  std::vector<std::string> addresses_;  // of experts, as the router is told
  std::vector<std::vector<std::string>> expert_args_;
  std::vector<std::unique_ptr<Process>> experts_;  // null: not started
  std::vector<std::unique_ptr<Process>> attention_;
  std::unique_ptr<Process> router_;
  std::shared_ptr<grpc::Channel> channel_;
};

}  // namespace

const char* ShapeName(ShapeOptions::Kind kind) {
  switch (kind) {
    case ShapeOptions::Kind::kLocal: return "local";
    case ShapeOptions::Kind::kColocated: return "colocated";
    case ShapeOptions::Kind::kCluster: return "cluster";
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
