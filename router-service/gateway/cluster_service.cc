#include <memory>
#include <utility>

#include "gatefold/cluster/v1/cluster.pb.h"
#include "gatefold/rpc/async_service.h"
#include "router-service/gateway/gateway_service.h"
#include "router-service/gateway/paging.h"

namespace gatefold {
namespace {

using cluster::v1::CancelGenerationRequest;
using cluster::v1::CancelGenerationResponse;
using cluster::v1::GetClusterRequest;
using cluster::v1::GetClusterResponse;
using cluster::v1::GetExpertLoadRequest;
using cluster::v1::GetExpertLoadResponse;
using cluster::v1::ListWorkersRequest;
using cluster::v1::ListWorkersResponse;

constexpr char kClusterService[] = "gatefold.cluster.v1.ClusterService";
constexpr char kAdminService[] = "gatefold.cluster.v1.AdminService";

absl::StatusOr<ListWorkersResponse> ListWorkers(const ClusterView& cluster,
                                                const ListWorkersRequest& request) {
  GetClusterResponse snapshot = cluster.Snapshot();
  const absl::StatusOr<Page> page =
      FindPage(snapshot.workers_size(), request.page_size(), request.page_token());
  if (!page.ok()) return page.status();
  ListWorkersResponse response;
  for (int i = page->begin; i < page->end; ++i) {
    *response.add_workers() = std::move(*snapshot.mutable_workers(i));
  }
  response.set_next_page_token(page->next_page_token);
  return response;
}

absl::StatusOr<CancelGenerationResponse> CancelGeneration(Gateway* gateway,
                                                          const CancelGenerationRequest& request) {
  if (!gateway->CancelRequest(request.request_id())) {
    return absl::NotFoundError("no request with this request_id is running here");
  }
  return CancelGenerationResponse();
}

}  // namespace

void AddClusterService(RpcServer* server, const ClusterView* cluster) {
  AddUnary<GetClusterRequest, GetClusterResponse>(
      server, kClusterService, "GetCluster",
      [cluster](std::shared_ptr<CallContext> /*call*/, const GetClusterRequest& /*request*/,
                Respond<GetClusterResponse> respond) { respond(cluster->Snapshot()); });
  AddUnary<ListWorkersRequest, ListWorkersResponse>(
      server, kClusterService, "ListWorkers",
      [cluster](std::shared_ptr<CallContext> /*call*/, const ListWorkersRequest& request,
                Respond<ListWorkersResponse> respond) { respond(ListWorkers(*cluster, request)); });
  AddUnary<GetExpertLoadRequest, GetExpertLoadResponse>(
      server, kClusterService, "GetExpertLoad",
      [cluster](std::shared_ptr<CallContext> /*call*/, const GetExpertLoadRequest& /*request*/,
                Respond<GetExpertLoadResponse> respond) {
        GetExpertLoadResponse response;
        for (cluster::v1::ExpertLoad& load : cluster->ExpertLoads()) {
          *response.add_experts() = std::move(load);
        }
        respond(response);
      });
}

void AddAdminService(RpcServer* server, Gateway* gateway) {
  AddUnary<CancelGenerationRequest, CancelGenerationResponse>(
      server, kAdminService, "CancelGeneration",
      [gateway](std::shared_ptr<CallContext> /*call*/, const CancelGenerationRequest& request,
                Respond<CancelGenerationResponse> respond) {
        respond(CancelGeneration(gateway, request));
      });
}

}  // namespace gatefold
