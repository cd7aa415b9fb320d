#include <memory>
#include <string>
#include <utility>

#include "gatefold/base/errors.h"
#include "gatefold/cluster/v1/cluster.pb.h"
#include "gatefold/rpc/async_service.h"
#include "router-service/gateway/gateway_service.h"

namespace gatefold {
namespace {

using cluster::v1::CancelGenerationRequest;
using cluster::v1::CancelGenerationResponse;
using cluster::v1::DrainWorkerRequest;
using cluster::v1::DrainWorkerResponse;
using cluster::v1::FlushKvCacheRequest;
using cluster::v1::FlushKvCacheResponse;
using cluster::v1::RebalanceExpertsRequest;
using cluster::v1::RebalanceExpertsResponse;
using cluster::v1::ResumeWorkerRequest;
using cluster::v1::ResumeWorkerResponse;

constexpr char kAdminService[] = "gatefold.cluster.v1.AdminService";

// DrainWorker and ResumeWorker differ in one word.
template <typename Request, typename Response>
void AddSetDraining(RpcServer* server, const char* method, ClusterAdmin* admin, bool draining) {
  AddUnary<Request, Response>(
      server, kAdminService, method,
      [admin, draining](std::shared_ptr<CallContext> /*call*/, const Request& request,
                        Respond<Response> respond) {
        if (request.worker().empty()) {
          return respond(BadField("worker", "is empty, must be a name or address"));
        }
        admin->SetDraining(request.worker(), draining,
                           [respond](absl::StatusOr<cluster::v1::Worker> worker) {
                             if (!worker.ok()) return respond(worker.status());
                             Response response;
                             *response.mutable_worker() = *std::move(worker);
                             respond(response);
                           });
      });
}

}  // namespace

void AddAdminService(RpcServer* server, Gateway* gateway, ClusterAdmin* admin) {
  if (gateway != nullptr) {
    AddUnary<CancelGenerationRequest, CancelGenerationResponse>(
        server, kAdminService, "CancelGeneration",
        [gateway](std::shared_ptr<CallContext> /*call*/, const CancelGenerationRequest& request,
                  Respond<CancelGenerationResponse> respond) {
          if (!gateway->CancelRequest(request.request_id())) {
            return respond(absl::NotFoundError("no request with this request_id is running here"));
          }
          respond(CancelGenerationResponse());
        });
  }
  if (admin == nullptr) return;
  AddSetDraining<DrainWorkerRequest, DrainWorkerResponse>(server, "DrainWorker", admin, true);
  AddSetDraining<ResumeWorkerRequest, ResumeWorkerResponse>(server, "ResumeWorker", admin, false);
  AddUnary<FlushKvCacheRequest, FlushKvCacheResponse>(
      server, kAdminService, "FlushKvCache",
      [admin](std::shared_ptr<CallContext> /*call*/, const FlushKvCacheRequest& request,
              Respond<FlushKvCacheResponse> respond) {
        admin->FlushKvCache(request.worker(), respond);
      });
  AddUnary<RebalanceExpertsRequest, RebalanceExpertsResponse>(
      server, kAdminService, "RebalanceExperts",
      [admin](std::shared_ptr<CallContext> /*call*/, const RebalanceExpertsRequest& /*request*/,
              Respond<RebalanceExpertsResponse> respond) { admin->Rebalance(respond); });
}

}  // namespace gatefold
