#pragma once

#include "gatefold/rpc/server.h"
#include "router-service/gateway/cluster_admin.h"
#include "router-service/gateway/cluster_view.h"
#include "router-service/gateway/cluster_watch.h"
#include "router-service/gateway/gateway.h"
#include "router-service/gateway/serving_stats.h"

namespace gatefold {

// The gRPC side of the gateway: decodes, delegates, encodes. Add to a server before it starts; the
// gateway and the view outlive it, and its Shutdown ends all their requests.

// gatefold.inference.v1.InferenceService. A caller that goes away cancels its request.
void AddInferenceService(RpcServer* server, Gateway* gateway);

// gatefold.inference.v1.ModelService.
void AddModelService(RpcServer* server, Gateway* gateway);

// gatefold.cluster.v1.ClusterService. Methods of what is null are UNIMPLEMENTED.
struct ClusterServiceParts {
  const ClusterView* view = nullptr;  // never null
  ClusterWatch* watch = nullptr;
  const ServingStats* stats = nullptr;
  const Gateway* gateway = nullptr;
};
void AddClusterService(RpcServer* server, const ClusterServiceParts& parts);

// gatefold.cluster.v1.AdminService. For ports that only operators reach. Methods of what is null
// are UNIMPLEMENTED.
void AddAdminService(RpcServer* server, Gateway* gateway, ClusterAdmin* admin);

}  // namespace gatefold
