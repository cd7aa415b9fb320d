#pragma once

#include <cstdint>

#include "router-service/gateway/gateway_options.h"
#include "router-service/gateway/model_info.h"

namespace gatefold {

// What a request message may come to whose fields are all within their limits: of a larger one some
// field is not. A prompt is of one kind, and all kinds are counted; so one that is over its limit
// by less than the others' is read, and its refusal can name the field.
int64_t MaxRequestBytes(const RequestLimits& limits, const ModelInfo& model);

// The same for what takes memory of its own (gatefold/rpc/message_parts.h).
int64_t MaxRequestParts(const RequestLimits& limits);

}  // namespace gatefold
