#pragma once

#include "gatefold/rpc/server.h"

namespace gatefold {

// Serves grpc.reflection.v1alpha.ServerReflection for the services of `server`, so that generic
// clients (grpcurl) work without .proto files. Descriptors come from the program's own pool.
// Debian's plugin is a synchronous service and would bring threads of its own.
void AddReflection(RpcServer* server);

}  // namespace gatefold
