#pragma once

#include <memory>
#include <string>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/time/time.h"
#include "cli/flag_set.h"
#include "cli/interrupts.h"
#include "cli/local_flags.h"
#include "cli/local_router.h"
#include "gatefold/cluster/v1/cluster.grpc.pb.h"
#include "gatefold/inference/v1/inference.grpc.pb.h"
#include "gatefold/inference/v1/model.grpc.pb.h"
#include "gatefold/rpc/tls_options.h"
#include "grpcpp/channel.h"
#include "grpcpp/client_context.h"

namespace gatefold::cli {

// Where the model is: in this process (--model) or behind a router (--router).
struct ConnectionFlags {
  std::string model;
  std::string router;
  TlsOptions tls;  // of the connection to the router; none: plaintext
  std::string api_key, api_key_file;
  absl::Duration timeout = absl::InfiniteDuration();
  LocalFlags local;

  void AddTo(FlagSet* flags);
  // Without the flags of serving: for verbs that need no weights.
  void AddPlaceTo(FlagSet* flags);
  // Without --model: for what only a cluster has.
  void AddRouterTo(FlagSet* flags);
  // A usage error unless exactly one of the two is given. One from the command line beats one from
  // the environment.
  absl::Status Choose(const FlagSet& flags);
  // api_key, or what its file holds; empty: none.
  absl::StatusOr<std::string> ApiKey() const;

 private:
  void AddSecurityTo(FlagSet* flags);
};

// A way to the public API. Nothing in the verbs depends on where it leads.
class Connection {
 public:
  // Loads the model, or connects; after flags.Choose().
  static absl::StatusOr<std::unique_ptr<Connection>> Open(const ConnectionFlags& flags,
                                                          Interrupts* interrupts);

  // Routers of one cluster; all but generations asks the first.
  size_t n_routers() const { return inference_.size(); }
  inference::v1::InferenceService::Stub* inference(size_t router = 0) {
    return inference_[router].get();
  }
  inference::v1::ModelService::Stub* models() { return models_.get(); }
  cluster::v1::ClusterService::Stub* cluster() { return cluster_.get(); }
  cluster::v1::AdminService::Stub* admin() { return admin_.get(); }

  // All workers of the cluster.
  absl::StatusOr<std::vector<cluster::v1::Worker>> ListWorkers();

  // The model there is.
  absl::StatusOr<inference::v1::Model> GetModel();

  // The result of a call, with what the user can do about it.
  absl::Status ToStatus(const grpc::Status& status, size_t router = 0) const;

  absl::Duration timeout() const { return timeout_; }
  const std::string& api_key() const { return api_key_; }
  Interrupts* interrupts() const { return interrupts_; }

 private:
  Connection() = default;

  std::unique_ptr<LocalRouter> local_;  // null: remote. Outlives the stubs
  std::vector<std::string> routers_;    // none: local
  std::string api_key_;
  absl::Duration timeout_;
  Interrupts* interrupts_ = nullptr;
  std::vector<std::unique_ptr<inference::v1::InferenceService::Stub>> inference_;  // by router
  std::unique_ptr<inference::v1::ModelService::Stub> models_;
  std::unique_ptr<cluster::v1::ClusterService::Stub> cluster_;
  std::unique_ptr<cluster::v1::AdminService::Stub> admin_;
};

// One call: its deadline, the user's key, and its end when the user interrupts.
class Call {
 public:
  explicit Call(const Connection& connection);
  grpc::ClientContext* context() { return &context_; }

 private:
  grpc::ClientContext context_;
  const Interrupts::Scope scope_;
};

}  // namespace gatefold::cli
