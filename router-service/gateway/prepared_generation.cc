#include "router-service/gateway/prepared_generation.h"

#include <utility>

#include "absl/strings/str_cat.h"
#include "gatefold/base/errors.h"
#include "gatefold/base/status_macros.h"
#include "router-service/gateway/effective_config.h"
#include "router-service/gateway/prompt_encoder.h"
#include "router-service/gateway/request_end.h"

namespace gatefold {
namespace {

absl::Status CheckResumed(int64_t n_resumed, const PreparedGeneration& prepared,
                          int64_t max_sequence_tokens) {
  const int64_t n_tokens = n_resumed + static_cast<int64_t>(prepared.prompt.size());
  if (n_tokens > max_sequence_tokens) {
    return Annotate(ContextLengthExceeded(n_tokens, max_sequence_tokens), "with resume_token_ids");
  }
  if (n_resumed > prepared.config.max_output_tokens()) {
    return BadField("resume_token_ids",
                    absl::StrCat("has ", n_resumed, " ids, more than the ",
                                 prepared.config.max_output_tokens(), " output tokens there are"));
  }
  return absl::OkStatus();
}

// How the output ended, if the resumed tokens, which stop at a stop string or not, are all of it.
std::optional<StopCause> ResumedEnd(int64_t n_resumed, bool stopped,
                                    const PreparedGeneration& prepared,
                                    int64_t max_sequence_tokens) {
  const int64_t n_tokens = n_resumed + static_cast<int64_t>(prepared.prompt.size());
  if (n_resumed == 0) return std::nullopt;
  if (stopped) return StopCause::kListener;
  if (n_resumed == prepared.config.max_output_tokens()) return StopCause::kMaxTokens;
  if (n_tokens == max_sequence_tokens) return StopCause::kContextLength;
  return std::nullopt;
}

}  // namespace

absl::StatusOr<PreparedGeneration> PrepareGeneration(
    const GatewayContext& context, const inference::v1::StreamGenerateTextRequest& request,
    absl::Time deadline) {
  const auto& asked = request.request();
  GF_RETURN_IF_ERROR(CheckTimeLeft(context.clock(), deadline));
  PreparedGeneration prepared;
  GF_ASSIGN_OR_RETURN(prepared.prompt, EncodePrompt(asked.prompt(), context.codec));
  if (prepared.prompt.empty()) return BadField("prompt", "has no tokens");
  prepared.config = FillDefaults(asked.config(), context.model);
  GF_ASSIGN_OR_RETURN(
      prepared.n_truncated,
      FitPrompt(context.max_sequence_tokens, context.options.limits.default_max_output_tokens,
                asked.truncation_policy(), context.model.bos_token_id, &prepared.config,
                &prepared.prompt));
  const std::vector<int32_t> resumed(request.resume_token_ids().begin(),
                                     request.resume_token_ids().end());
  const int64_t n_resumed = request.resume_token_ids_size();
  GF_RETURN_IF_ERROR(CheckResumed(n_resumed, prepared, context.max_sequence_tokens));
  GF_RETURN_IF_ERROR(CheckResponseSize(asked.output(), context.model, prepared.prompt.size(),
                                       context.options.limits.max_response_bytes));
  for (uint32_t i = 0; i < prepared.config.candidate_count(); ++i) {
    prepared.transcripts.emplace_back(static_cast<int>(i), context.codec, prepared.prompt,
                                      prepared.config, asked.output());
  }
  const bool stopped = prepared.transcripts[0].Resume(resumed);
  prepared.resumed_end = ResumedEnd(n_resumed, stopped, prepared, context.max_sequence_tokens);
  GF_RETURN_IF_ERROR(CheckTimeLeft(context.clock(), deadline));
  return prepared;
}

std::vector<GenerationRequest> Submissions(const GatewayContext& context,
                                           const inference::v1::StreamGenerateTextRequest& request,
                                           const PreparedGeneration& prepared,
                                           const std::string& request_id, absl::Time deadline) {
  std::vector<GenerationRequest> submissions;
  for (size_t i = 0; i < prepared.transcripts.size(); ++i) {
    GenerationRequest& each = submissions.emplace_back(MakeGenerationRequest(
        prepared.config, request.request().output(), context.model, static_cast<int>(i)));
    each.request_id = request_id;
    each.prompt = prepared.prompt;
    if (prepared.resumed_end.has_value()) {
      each.max_output_tokens = 0;  // what was asked about the prompt is all that is left
    } else {
      each.resumed.assign(request.resume_token_ids().begin(), request.resume_token_ids().end());
    }
    each.deadline = deadline;
    each.priority = request.request().priority();
  }
  return submissions;
}

}  // namespace gatefold
