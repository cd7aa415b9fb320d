#pragma once

#include "gatefold/rpc/server.h"
#include "router-service/gateway/cluster_view.h"
#include "router-service/gateway/gateway.h"

namespace gatefold {

// The gRPC side of the gateway: decodes, delegates, encodes. Add to a server before it starts; the
// gateway and the view outlive it, and its Shutdown ends all their requests.

// gatefold.inference.v1.InferenceService. A caller that goes away cancels its request.
void AddInferenceService(RpcServer* server, Gateway* gateway);

// gatefold.inference.v1.ModelService.
void AddModelService(RpcServer* server, Gateway* gateway);

// gatefold.cluster.v1.ClusterService.
void AddClusterService(RpcServer* server, const ClusterView* cluster);

// gatefold.cluster.v1.AdminService. For ports that only operators reach.
void AddAdminService(RpcServer* server, Gateway* gateway);

}  // namespace gatefold
