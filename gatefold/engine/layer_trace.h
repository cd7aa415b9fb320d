#pragma once

#include <cstdint>

#include "absl/types/span.h"
#include "gatefold/engine/expert_client.h"
#include "gatefold/engine/step_result.h"

namespace gatefold {

// served_by: [n_rows, top_k] and maybe more. Routes in host memory.
LayerTrace TraceOf(int layer, const Routes& routes, absl::Span<const uint8_t> served_by);

}  // namespace gatefold
