#pragma once

#include "gatefold/rpc/server.h"

namespace gatefold {

// Serves grpc.channelz.v1.Channelz: what gRPC knows of the process's channels, servers and sockets
// (calls, bytes, flow control, the last connection error), for grpcurl and grpcdebug. It shows
// peers' addresses, so it is for ports that strangers do not reach. Descriptors and messages come
// from gRPC's own library; its plugin is a synchronous service and would bring threads of its own.
void AddChannelz(RpcServer* server);

}  // namespace gatefold
