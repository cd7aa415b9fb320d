#include <algorithm>
#include <string>
#include <vector>

#include "absl/strings/ascii.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_format.h"
#include "absl/strings/str_join.h"
#include "absl/strings/strip.h"
#include "cli/connection.h"
#include "cli/error_report.h"
#include "cli/json_forms.h"
#include "cli/output.h"
#include "cli/verbs.h"
#include "gatefold/base/status_macros.h"

namespace gatefold::cli {
namespace {

using cluster::v1::ExpertLoad;
using cluster::v1::Worker;
using inference::v1::Model;

std::string KindName(const Worker& worker) {
  return absl::AsciiStrToLower(
      absl::StripPrefix(cluster::v1::WorkerKind_Name(worker.kind()), "WORKER_KIND_"));
}

std::string StateName(const Worker& worker) {
  return absl::AsciiStrToLower(
      absl::StripPrefix(cluster::v1::WorkerState_Name(worker.state()), "WORKER_STATE_"));
}

void ShowWorkers(const std::vector<Worker>& workers, bool json, std::ostream& out) {
  if (json) {
    Json list = Json::array();
    for (const Worker& worker : workers) {
      list.push_back({{"name", worker.name()},
                      {"address", worker.address()},
                      {"kind", KindName(worker)},
                      {"state", StateName(worker)},
                      {"detail", worker.detail()},
                      {"n_experts", worker.n_experts()},
                      {"loaded_bytes", worker.loaded_bytes()},
                      {"rows_served", worker.rows_served()},
                      {"n_kv_blocks", worker.n_kv_blocks()},
                      {"n_kv_blocks_free", worker.n_kv_blocks_free()},
                      {"numerics_class", absl::StrFormat("%016x", worker.numerics_class())},
                      {"isa", worker.isa()},
                      {"version", worker.version()},
                      {"metrics_address", worker.metrics_address()}});
    }
    PrintJson({{"workers", std::move(list)}}, out);
    return;
  }
  Table table({"name", "kind", "state", ">experts", ">loaded", ">rows served", ">KV free",
               "address", "detail"});
  for (const Worker& worker : workers) {
    const bool has_kv = worker.n_kv_blocks() > 0;
    table.AddRow({worker.name(), KindName(worker), StateName(worker),
                  absl::StrCat(worker.n_experts()), FormatBytes(worker.loaded_bytes()),
                  absl::StrCat(worker.rows_served()),
                  has_kv ? absl::StrCat(worker.n_kv_blocks_free(), "/", worker.n_kv_blocks()) : "",
                  worker.address(), worker.detail()});
  }
  table.Print(out);
}

void ShowExperts(const std::vector<ExpertLoad>& experts, bool json, std::ostream& out) {
  if (json) {
    Json list = Json::array();
    for (const ExpertLoad& expert : experts) {
      list.push_back({{"layer", expert.layer()},
                      {"expert", expert.expert()},
                      {"rows", expert.rows()},
                      {"shards", std::vector<std::string>(expert.shards().begin(),
                                                          expert.shards().end())}});
    }
    PrintJson({{"experts", std::move(list)}}, out);
    return;
  }
  Table table({">layer", ">expert", ">rows", "shards"});
  for (const ExpertLoad& expert : experts) {
    table.AddRow({absl::StrCat(expert.layer()), absl::StrCat(expert.expert()),
                  absl::StrCat(expert.rows()), absl::StrJoin(expert.shards(), ",")});
  }
  table.Print(out);
}

void ShowModels(const std::vector<Model>& models, bool json, std::ostream& out) {
  if (json) {
    Json list = Json::array();
    for (const Model& model : models) list.push_back(ModelJson(model));
    PrintJson({{"models", std::move(list)}}, out);
    return;
  }
  Table table({"name", "family", ">parameters", ">active", ">layers", "experts", "weights",
               ">max tokens"});
  for (const Model& model : models) {
    table.AddRow({model.name(), model.family(),
                  absl::StrFormat("%.1f M", model.parameters() / 1e6),
                  absl::StrFormat("%.1f M", model.active_parameters() / 1e6),
                  absl::StrCat(model.n_layers()),
                  model.n_experts() == 0
                      ? "dense"
                      : absl::StrCat(model.top_k(), " of ", model.n_experts()),
                  model.weight_dtype(), absl::StrCat(model.max_sequence_tokens())});
  }
  table.Print(out);
}

class GetVerb final : public Verb {
 public:
  absl::string_view name() const override { return "get"; }
  absl::string_view arguments() const override { return "workers|experts|models"; }
  absl::string_view summary() const override { return "Lists workers, experts or models."; }

  void AddFlags(FlagSet* flags) override {
    connection_.AddTo(flags);
    flags->Section("What is shown:");
    output_.AddTo(flags);
  }

  absl::Status Run(const FlagSet& flags, const std::vector<std::string>& arguments,
                   Console* console) override {
    GF_RETURN_IF_ERROR(output_.Check());
    const std::string what = arguments.size() == 1 ? arguments[0] : "";
    if (what != "workers" && what != "experts" && what != "models") {
      return UsageError("say what to get: workers, experts or models");
    }
    GF_RETURN_IF_ERROR(connection_.Choose(flags));
    GF_ASSIGN_OR_RETURN(const std::unique_ptr<Connection> connection,
                        Connection::Open(connection_, console->interrupts));
    if (what == "workers") {
      GF_ASSIGN_OR_RETURN(const std::vector<Worker> workers, GetWorkers(connection.get()));
      ShowWorkers(workers, output_.json(), console->out);
    } else if (what == "experts") {
      GF_ASSIGN_OR_RETURN(const std::vector<ExpertLoad> experts, GetExperts(connection.get()));
      ShowExperts(experts, output_.json(), console->out);
    } else {
      GF_ASSIGN_OR_RETURN(const std::vector<Model> models, GetModels(connection.get()));
      ShowModels(models, output_.json(), console->out);
    }
    return absl::OkStatus();
  }

 private:
  // All pages. fetch(request, response) is one call; items(response) are what a page holds.
  template <typename Request, typename Response, typename Fetch, typename Items>
  static absl::Status GetPages(Fetch fetch, Items items) {
    Request request;
    Response response;
    do {
      response.Clear();
      GF_RETURN_IF_ERROR(fetch(request, &response));
      items(response);
      request.set_page_token(response.next_page_token());
    } while (!response.next_page_token().empty());
    return absl::OkStatus();
  }

  static absl::StatusOr<std::vector<Worker>> GetWorkers(Connection* connection) {
    using Request = cluster::v1::ListWorkersRequest;
    using Response = cluster::v1::ListWorkersResponse;
    std::vector<Worker> workers;
    const auto fetch = [&](const Request& request, Response* response) {
      Call call(*connection);
      return connection->ToStatus(
          connection->cluster()->ListWorkers(call.context(), request, response));
    };
    GF_RETURN_IF_ERROR((GetPages<Request, Response>(fetch, [&](const Response& page) {
      workers.insert(workers.end(), page.workers().begin(), page.workers().end());
    })));
    return workers;
  }

  static absl::StatusOr<std::vector<Model>> GetModels(Connection* connection) {
    using Request = inference::v1::ListModelsRequest;
    using Response = inference::v1::ListModelsResponse;
    std::vector<Model> models;
    const auto fetch = [&](const Request& request, Response* response) {
      Call call(*connection);
      return connection->ToStatus(
          connection->models()->ListModels(call.context(), request, response));
    };
    GF_RETURN_IF_ERROR((GetPages<Request, Response>(fetch, [&](const Response& page) {
      models.insert(models.end(), page.models().begin(), page.models().end());
    })));
    return models;
  }

  static absl::StatusOr<std::vector<ExpertLoad>> GetExperts(Connection* connection) {
    Call call(*connection);
    cluster::v1::GetExpertLoadResponse response;
    GF_RETURN_IF_ERROR(connection->ToStatus(
        connection->cluster()->GetExpertLoad(call.context(), {}, &response)));
    std::vector<ExpertLoad> experts(response.experts().begin(), response.experts().end());
    std::sort(experts.begin(), experts.end(), [](const ExpertLoad& a, const ExpertLoad& b) {
      return std::pair(a.layer(), a.expert()) < std::pair(b.layer(), b.expert());
    });
    return experts;
  }

  ConnectionFlags connection_;
  OutputFlag output_;
};

}  // namespace

std::unique_ptr<Verb> MakeGetVerb() { return std::make_unique<GetVerb>(); }

}  // namespace gatefold::cli
