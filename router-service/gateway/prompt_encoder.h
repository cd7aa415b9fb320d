#pragma once

#include <cstdint>
#include <vector>

#include "absl/status/statusor.h"
#include "gatefold/inference/v1/inference.pb.h"
#include "router-service/gateway/text_codec.h"

namespace gatefold {

// The token ids of a prompt that a RequestChecker accepted. Takes up to a second for a large text,
// so it is not for poll threads. `codec` may be null for token ids.
// Errors: InvalidArgument naming the field, for what tokenizer or chat template refuse.
absl::StatusOr<std::vector<int32_t>> EncodePrompt(const inference::v1::Prompt& prompt,
                                                  const TextCodec* codec);

}  // namespace gatefold
