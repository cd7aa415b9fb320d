#pragma once

#include <cstdint>
#include <optional>
#include <vector>

#include "absl/status/statusor.h"
#include "gatefold/inference/v1/inference.pb.h"
#include "router-service/gateway/gateway_options.h"
#include "router-service/gateway/model_info.h"
#include "router-service/scheduler/generation.h"

namespace gatefold {

// The request's config, which a RequestChecker accepted, with the model's defaults where it is
// silent. Every scalar is set but max_output_tokens, which depends on the prompt; a missing seed is
// drawn.
inference::v1::GenerationConfig FillDefaults(const inference::v1::GenerationConfig& config,
                                             const ModelInfo& model);

// Makes prompt and output fit `max_sequence_tokens` (which prompt and output share) and sets
// max_output_tokens if it is unset. With TRUNCATION_POLICY_KEEP_END a prompt that is too long loses
// its oldest tokens, but not a leading BOS, until max_output_tokens fit behind it (at most a
// quarter of the length if it is unset); otherwise it is refused.
// Returns how many tokens were dropped. Errors: kInvalidArgument (CONTEXT_LENGTH_EXCEEDED).
absl::StatusOr<int> FitPrompt(int max_sequence_tokens, int default_max_output_tokens,
                              inference::v1::TruncationPolicy policy,
                              std::optional<int32_t> bos_token_id,
                              inference::v1::GenerationConfig* config,
                              std::vector<int32_t>* prompt);

// What the scheduler is asked for candidate `index`; `config` is effective. Prompt, resumed tokens,
// id, deadline and priority are left for the caller.
GenerationRequest MakeGenerationRequest(const inference::v1::GenerationConfig& config,
                                        const inference::v1::OutputOptions& output,
                                        const ModelInfo& model, int index);

// InvalidArgument if what `output` asks about a prompt of this length would make a response of more
// than `limit` bytes (an estimate that is not too low).
absl::Status CheckResponseSize(const inference::v1::OutputOptions& output, const ModelInfo& model,
                               int64_t n_prompt_tokens, int64_t limit);

}  // namespace gatefold
