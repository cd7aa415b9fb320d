#include <memory>

#include "gatefold/inference/v1/model.pb.h"
#include "gatefold/rpc/async_service.h"
#include "router-service/gateway/gateway_service.h"
#include "router-service/gateway/paging.h"

namespace gatefold {
namespace {

using inference::v1::GetModelRequest;
using inference::v1::GetModelResponse;
using inference::v1::ListModelsRequest;
using inference::v1::ListModelsResponse;

constexpr char kService[] = "gatefold.inference.v1.ModelService";

absl::StatusOr<GetModelResponse> GetModel(const Gateway& gateway, const GetModelRequest& request) {
  if (absl::Status known = gateway.CheckModel(request.name()); !known.ok()) return known;
  GetModelResponse response;
  *response.mutable_model() = ToProto(gateway.model());
  return response;
}

absl::StatusOr<ListModelsResponse> ListModels(const Gateway& gateway,
                                              const ListModelsRequest& request) {
  const absl::StatusOr<Page> page = FindPage(1, request.page_size(), request.page_token());
  if (!page.ok()) return page.status();
  ListModelsResponse response;
  if (page->begin < page->end) *response.add_models() = ToProto(gateway.model());
  return response;
}

}  // namespace

void AddModelService(RpcServer* server, Gateway* gateway) {
  AddUnary<GetModelRequest, GetModelResponse>(
      server, kService, "GetModel",
      [gateway](std::shared_ptr<CallContext> /*call*/, const GetModelRequest& request,
                Respond<GetModelResponse> respond) { respond(GetModel(*gateway, request)); });
  AddUnary<ListModelsRequest, ListModelsResponse>(
      server, kService, "ListModels",
      [gateway](std::shared_ptr<CallContext> /*call*/, const ListModelsRequest& request,
                Respond<ListModelsResponse> respond) { respond(ListModels(*gateway, request)); });
}

}  // namespace gatefold
