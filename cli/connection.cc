#include "cli/connection.h"

#include <utility>

#include "absl/strings/ascii.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_split.h"
#include "absl/time/clock.h"
#include "cli/error_report.h"
#include "gatefold/base/small_file.h"
#include "gatefold/base/status_macros.h"
#include "gatefold/rpc/channel.h"
#include "gatefold/rpc/status.h"

namespace gatefold::cli {

void ConnectionFlags::AddPlaceTo(FlagSet* flags) {
  flags->Section("Where the model is, one of:");
  flags->Add("model", "DIR", "folder of a model, served in this process", &model);
  flags->Add("router", "ADDRESS",
             "router of a cluster: host:port or unix:/path; of several, with commas, generate and "
             "chat go on at the next where one goes away",
             &router);
  flags->Section("With --router:");
  AddSecurityTo(flags);
  flags->Section("With either:");
  flags->Add("timeout", "DURATION", "give up on a request after so long, as 30s (default: never)",
             &timeout);
}

void ConnectionFlags::AddSecurityTo(FlagSet* flags) {
  flags->Add("tls-ca-file", "FILE", "use TLS; the CA (PEM) that the router is verified with",
             &tls.ca_file);
  flags->Add("tls-cert-file", "FILE", "certificate (PEM) to show, where the router asks for one",
             &tls.cert_file);
  flags->Add("tls-key-file", "FILE", "its private key (PEM, mode 0600)", &tls.key_file);
  flags->Add("tls-server-name", "NAME", "whom the router's certificate is for, if not its host",
             &tls.server_name);
  flags->Add("api-key-file", "FILE", "file (mode 0600) with the API key", &api_key_file);
  flags->Add("api-key", "KEY",
             "the key itself; better as GATEFOLD_API_KEY: others can see command lines", &api_key);
}

void ConnectionFlags::AddRouterTo(FlagSet* flags) {
  flags->Add("router", "ADDRESS", "router of the cluster: host:port or unix:/path", &router);
  AddSecurityTo(flags);
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
  for (const char* flag : {"tls-ca-file", "tls-cert-file", "tls-key-file", "tls-server-name",
                           "api-key", "api-key-file"}) {
    if (router.empty() && flags.OnCommandLine(flag)) {
      return UsageError(absl::StrCat("--", flag, " is for --router"));
    }
  }
  const std::string local_flag = LocalFlags::AnyGiven(flags);
  if (model.empty() && !local_flag.empty()) {
    return UsageError(absl::StrCat(local_flag, " is for --model; a cluster has its own settings"));
  }
  return absl::OkStatus();
}

absl::StatusOr<std::string> ConnectionFlags::ApiKey() const {
  if (!api_key.empty() || api_key_file.empty()) return api_key;
  constexpr size_t kMaxBytes = 4096;
  const absl::StatusOr<std::string> text = ReadPrivateFile(api_key_file, kMaxBytes);
  if (!text.ok()) return Annotate(text.status(), "--api-key-file");
  return std::string(absl::StripAsciiWhitespace(*text));
}

absl::StatusOr<std::unique_ptr<Connection>> Connection::Open(const ConnectionFlags& flags,
                                                             Interrupts* interrupts) {
  std::unique_ptr<Connection> connection(new Connection());
  connection->timeout_ = flags.timeout;
  connection->interrupts_ = interrupts;
  std::vector<std::shared_ptr<grpc::Channel>> channels;
  if (flags.router.empty()) {
    GF_ASSIGN_OR_RETURN(const LocalRouterOptions options, flags.local.ToOptions(flags.model));
    absl::StatusOr<std::unique_ptr<LocalRouter>> local = LocalRouter::Start(options);
    if (!local.ok()) return ModelFolderError(flags.model, local.status());
    connection->local_ = *std::move(local);
    channels.push_back(connection->local_->channel());
  } else {
    ChannelOptions options;
    options.max_reconnect_backoff = absl::Seconds(10);  // also how long an attempt may take
    GF_ASSIGN_OR_RETURN(options.security, TransportSecurity::ForClient(flags.tls));
    GF_ASSIGN_OR_RETURN(connection->api_key_, flags.ApiKey());
    for (const unsigned char c : connection->api_key_) {
      if (!absl::ascii_isgraph(c)) return UsageError("the API key has a character no key can have");
    }
    connection->routers_ = absl::StrSplit(flags.router, ',');
    for (const std::string& router : connection->routers_) {
      absl::StatusOr<std::shared_ptr<grpc::Channel>> made =
          MakeChannel(router, ChannelKind::kDecode, options);
      if (!made.ok()) return UsageError(absl::StrCat("--router: ", made.status().message()));
      channels.push_back(*std::move(made));
    }
  }
  for (const auto& channel : channels) {
    connection->inference_.push_back(inference::v1::InferenceService::NewStub(channel));
  }
  connection->models_ = inference::v1::ModelService::NewStub(channels[0]);
  connection->cluster_ = cluster::v1::ClusterService::NewStub(channels[0]);
  connection->admin_ = cluster::v1::AdminService::NewStub(channels[0]);
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

absl::Status Connection::ToStatus(const grpc::Status& status, size_t router) const {
  const absl::Status converted = FromGrpcStatus(status);
  if (absl::IsUnauthenticated(converted)) {
    return WithNextStep(Annotate(converted, routers_.empty() ? "" : routers_[router]),
                        "Give a key with GATEFOLD_API_KEY or --api-key-file.");
  }
  if (!absl::IsUnavailable(converted) || routers_.empty()) return converted;
  return WithNextStep(Annotate(converted, routers_[router]),
                      "Check that a router listens there (deploy/local-cluster.sh starts one), "
                      "and with TLS if --tls-ca-file is given and only then.");
}

Call::Call(const Connection& connection)
    : scope_(connection.interrupts(), [this] { context_.TryCancel(); }) {
  if (!connection.api_key().empty()) {
    context_.AddMetadata("authorization", absl::StrCat("Bearer ", connection.api_key()));
  }
  if (connection.timeout() == absl::InfiniteDuration()) return;
  context_.set_deadline(absl::ToChronoTime(absl::Now() + connection.timeout()));
}

}  // namespace gatefold::cli
