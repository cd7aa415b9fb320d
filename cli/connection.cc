#include "cli/connection.h"

#include <utility>

#include "absl/strings/str_cat.h"
#include "absl/time/clock.h"
#include "cli/error_report.h"
#include "gatefold/base/status_macros.h"
#include "gatefold/rpc/channel.h"
#include "gatefold/rpc/status.h"

namespace gatefold::cli {

void ConnectionFlags::AddPlaceTo(FlagSet* flags) {
  flags->Section("Where the model is, one of:");
  flags->Add("model", "DIR", "folder of a model, served in this process", &model);
  flags->Add("router", "ADDRESS", "router of a cluster: host:port or unix:/path", &router);
  flags->Section("With either:");
  flags->Add("timeout", "DURATION", "give up on a request after so long, as 30s (default: never)",
             &timeout);
}

void ConnectionFlags::AddRouterTo(FlagSet* flags) {
  flags->Add("router", "ADDRESS", "router of the cluster: host:port or unix:/path", &router);
  flags->Add("timeout", "DURATION", "give up on a call after so long, as 30s (default: never)",
             &timeout);
}

void ConnectionFlags::AddTo(FlagSet* flags) {
  AddPlaceTo(flags);
  flags->Section("With --model:");
  local.AddTo(flags);
}

absl::Status ConnectionFlags::Choose(const FlagSet& flags) {
  if (!model.empty() && !router.empty()) {
    const bool model_given = flags.OnCommandLine("model");
    if (model_given == flags.OnCommandLine("router")) {
      return UsageError("--model and --router exclude each other");
    }
    (model_given ? router : model).clear();
  }
  if (model.empty() && router.empty()) {
    return UsageError(
        "say where the model is: --model DIR for a folder, --router HOST:PORT for a cluster");
  }
  const std::string local_flag = LocalFlags::AnyGiven(flags);
  if (model.empty() && !local_flag.empty()) {
    return UsageError(absl::StrCat(local_flag, " is for --model; a cluster has its own settings"));
  }
  return absl::OkStatus();
}

absl::StatusOr<std::unique_ptr<Connection>> Connection::Open(const ConnectionFlags& flags,
                                                             Interrupts* interrupts) {
  std::unique_ptr<Connection> connection(new Connection());
  connection->router_ = flags.router;
  connection->timeout_ = flags.timeout;
  connection->interrupts_ = interrupts;
  std::shared_ptr<grpc::Channel> channel;
  if (flags.router.empty()) {
    GF_ASSIGN_OR_RETURN(const LocalRouterOptions options, flags.local.ToOptions(flags.model));
    absl::StatusOr<std::unique_ptr<LocalRouter>> local = LocalRouter::Start(options);
    if (!local.ok()) return ModelFolderError(flags.model, local.status());
    connection->local_ = *std::move(local);
    channel = connection->local_->channel();
  } else {
    ChannelOptions options;
    options.max_reconnect_backoff = absl::Seconds(10);  // also how long an attempt may take
    absl::StatusOr<std::shared_ptr<grpc::Channel>> made =
        MakeChannel(flags.router, ChannelKind::kDecode, options);
    if (!made.ok()) return UsageError(absl::StrCat("--router: ", made.status().message()));
    channel = *std::move(made);
  }
  connection->inference_ = inference::v1::InferenceService::NewStub(channel);
  connection->models_ = inference::v1::ModelService::NewStub(channel);
  connection->cluster_ = cluster::v1::ClusterService::NewStub(channel);
  connection->admin_ = cluster::v1::AdminService::NewStub(channel);
  return connection;
}

absl::StatusOr<inference::v1::Model> Connection::GetModel() {
  Call call(*this);
  inference::v1::GetModelResponse response;
  GF_RETURN_IF_ERROR(ToStatus(models_->GetModel(call.context(), {}, &response)));
  return response.model();
}

absl::StatusOr<std::vector<cluster::v1::Worker>> Connection::ListWorkers() {
  std::vector<cluster::v1::Worker> workers;
  cluster::v1::ListWorkersRequest request;
  do {
    Call call(*this);
    cluster::v1::ListWorkersResponse page;
    GF_RETURN_IF_ERROR(ToStatus(cluster_->ListWorkers(call.context(), request, &page)));
    workers.insert(workers.end(), page.workers().begin(), page.workers().end());
    request.set_page_token(page.next_page_token());
  } while (!request.page_token().empty());
  return workers;
}

absl::Status Connection::ToStatus(const grpc::Status& status) const {
  const absl::Status converted = FromGrpcStatus(status);
  if (!absl::IsUnavailable(converted) || router_.empty()) return converted;
  return WithNextStep(Annotate(converted, router_),
                      "Check that a router listens there (deploy/local-cluster.sh starts one), or "
                      "give --model DIR.");
}

Call::Call(const Connection& connection)
    : scope_(connection.interrupts(), [this] { context_.TryCancel(); }) {
  if (connection.timeout() == absl::InfiniteDuration()) return;
  context_.set_deadline(absl::ToChronoTime(absl::Now() + connection.timeout()));
}

}  // namespace gatefold::cli
