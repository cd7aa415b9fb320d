#pragma once

#include <string>
#include <vector>

#include "gatefold/inference/v1/inference.pb.h"
#include "router-service/scheduler/generation.h"

namespace gatefold {

// Adds positions [first_position, end_position) of `chunk`, as far as it has them, to `trace`.
// `shard_names` are the engine's, by the indices in the chunk; the trace lists only those it needs.
// False, with nothing added, where the positions do not follow those that `trace` already has.
bool AppendTrace(const TraceChunk& chunk, int first_position, int end_position,
                 const std::vector<std::string>& shard_names, inference::v1::RoutingTrace* trace);

// The same with the positions of another trace.
bool AppendTrace(const inference::v1::RoutingTrace& more, inference::v1::RoutingTrace* trace);

}  // namespace gatefold
