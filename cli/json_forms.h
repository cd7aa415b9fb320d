#pragma once

// The machine-readable forms (-o json) of what comes from the model. Other programs rely on them:
// keys may be added, never changed.

#include <cstdint>
#include <string>
#include <vector>

#include "absl/status/statusor.h"
#include "cli/answer.h"
#include "cli/output.h"
#include "gatefold/inference/v1/inference.pb.h"
#include "gatefold/inference/v1/model.pb.h"

namespace gatefold::cli {

// {"prompt_tokens", "cached_tokens", "output_tokens"}
Json UsageJson(const inference::v1::Usage& usage);
// {"token_ids", "text", "finish_reason", "usage": {"prompt_tokens", "cached_tokens",
// "output_tokens"}}
Json GenerateJson(const Answer& answer);
// [{"token_id", "token", "logprob", "top": [{"token_id", "token", "logprob"}]}]
Json LogprobsJson(const std::vector<inference::v1::TokenLogprobs>& tokens);
// {"shards": [{"shard", "rows", "percent"}], "experts": [{"layer", "expert", "rows", "percent"}]}
Json RoutingSharesJson(const RoutingShares& shares);

// {"argmax": [n ids], "logprobs": [null, n - 1 numbers]}. Errors: Internal if the response has not
// the same number of both.
absl::StatusOr<Json> ScoreJson(const inference::v1::ScoreTextResponse& response);
// [layer][token]{"experts", "weights"}, the heaviest first; null for layers without a gate.
absl::StatusOr<Json> RoutingJson(const inference::v1::RoutingTrace& trace, int n_layers,
                                 int n_tokens);

// {"token_ids"}
Json TokenIdsJson(const std::vector<int32_t>& token_ids);
// {"text"}
Json TextJson(const std::string& text);

// One of {"models": [...]}.
Json ModelJson(const inference::v1::Model& model);

}  // namespace gatefold::cli
