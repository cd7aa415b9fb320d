#include <algorithm>
#include <map>
#include <string>
#include <utility>
#include <vector>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_format.h"
#include "absl/strings/str_join.h"
#include "cli/connection.h"
#include "cli/error_report.h"
#include "cli/json_forms.h"
#include "cli/output.h"
#include "cli/verbs.h"
#include "cli/worker_names.h"
#include "gatefold/base/status_macros.h"

namespace gatefold::cli {
namespace {

using cluster::v1::ExpertLoad;
using cluster::v1::Worker;
using inference::v1::Model;

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
                      {"n_sole_experts", worker.n_sole_experts()},
                      {"loaded_bytes", worker.loaded_bytes()},
                      {"rows_served", worker.rows_served()},
                      {"busy_ratio", worker.busy_ratio()},
                      {"n_sequences", worker.n_sequences()},
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
  Table table({"name", "kind", "state", ">busy", ">experts", ">only here", ">loaded",
               ">rows served", ">sequences", ">KV free", "address", "detail"});
  for (const Worker& worker : workers) {
    const bool has_kv = worker.n_kv_blocks() > 0, has_experts = worker.n_experts() > 0;
    const auto when = [](bool there, auto value) { return there ? absl::StrCat(value) : ""; };
    table.AddRow({worker.name(), KindName(worker), StateName(worker),
                  absl::StrFormat("%.0f %%", 100 * worker.busy_ratio()),
                  when(has_experts, worker.n_experts()), when(has_experts, worker.n_sole_experts()),
                  has_experts ? FormatBytes(worker.loaded_bytes()) : "",
                  when(has_experts, worker.rows_served()), when(has_kv, worker.n_sequences()),
                  has_kv ? absl::StrCat(worker.n_kv_blocks_free(), "/", worker.n_kv_blocks()) : "",
                  worker.address(), worker.detail()});
  }
  table.Print(out);
}

// By layer: the rows an expert would have if all had the same.
std::map<uint32_t, double> EvenRows(const std::vector<ExpertLoad>& experts) {
  std::map<uint32_t, std::pair<double, double>> sums;  // rows, experts
  for (const ExpertLoad& expert : experts) {
    sums[expert.layer()].first += static_cast<double>(expert.rows());
    sums[expert.layer()].second += 1;
  }
  std::map<uint32_t, double> even;
  for (const auto& [layer, sum] : sums) even[layer] = sum.first / sum.second;
  return even;
}

void ShowExperts(const std::vector<ExpertLoad>& experts, bool json, std::ostream& out) {
  std::map<uint32_t, double> even = EvenRows(experts);
  const auto load = [&even](const ExpertLoad& expert) {
    const double rows = even[expert.layer()];
    return rows > 0 ? static_cast<double>(expert.rows()) / rows : 0.0;
  };
  if (json) {
    Json list = Json::array();
    for (const ExpertLoad& expert : experts) {
      list.push_back(
          {{"layer", expert.layer()},
           {"expert", expert.expert()},
           {"rows", expert.rows()},
           {"load", load(expert)},
           {"replicas", expert.shards_size()},
           {"shards", std::vector<std::string>(expert.shards().begin(), expert.shards().end())}});
    }
    PrintJson({{"experts", std::move(list)}}, out);
    return;
  }
  // Load: rows over the mean of the layer's experts.
  Table table({">layer", ">expert", ">replicas", ">rows", ">load", "shards"});
  for (const ExpertLoad& expert : experts) {
    table.AddRow({absl::StrCat(expert.layer()), absl::StrCat(expert.expert()),
                  absl::StrCat(expert.shards_size()), absl::StrCat(expert.rows()),
                  absl::StrFormat("%.2f", load(expert)), absl::StrJoin(expert.shards(), ",")});
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
  Table table(
      {"name", "family", ">parameters", ">active", ">layers", "experts", "weights", ">max tokens"});
  for (const Model& model : models) {
    table.AddRow(
        {model.name(), model.family(), absl::StrFormat("%.1f M", model.parameters() / 1e6),
         absl::StrFormat("%.1f M", model.active_parameters() / 1e6), absl::StrCat(model.n_layers()),
         model.n_experts() == 0 ? "dense" : absl::StrCat(model.top_k(), " of ", model.n_experts()),
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
      GF_ASSIGN_OR_RETURN(const std::vector<Worker> workers, connection->ListWorkers());
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
    GF_RETURN_IF_ERROR(
        connection->ToStatus(connection->cluster()->GetExpertLoad(call.context(), {}, &response)));
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
