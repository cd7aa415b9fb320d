#include "router-service/gateway/effective_config.h"

#include <algorithm>

#include "absl/strings/str_cat.h"
#include "gatefold/base/errors.h"
#include "gatefold/base/status_macros.h"
#include "router-service/gateway/random_bits.h"

namespace gatefold {

using inference::v1::GenerationConfig;
using inference::v1::OutputOptions;

GenerationConfig FillDefaults(const GenerationConfig& config, const ModelInfo& model) {
  GenerationConfig filled = config;
  const SamplingDefaults& defaults = model.defaults;
  if (!filled.has_min_output_tokens()) filled.set_min_output_tokens(0);
  if (!filled.has_temperature()) filled.set_temperature(defaults.temperature);
  if (!filled.has_top_p()) filled.set_top_p(defaults.top_p);
  if (!filled.has_top_k()) filled.set_top_k(defaults.top_k);
  if (!filled.has_min_p()) filled.set_min_p(defaults.min_p);
  if (!filled.has_repetition_penalty()) {
    filled.set_repetition_penalty(defaults.repetition_penalty);
  }
  if (!filled.has_presence_penalty()) filled.set_presence_penalty(0);
  if (!filled.has_frequency_penalty()) filled.set_frequency_penalty(0);
  if (!filled.has_seed()) filled.set_seed(RandomBits());
  if (!filled.has_candidate_count()) filled.set_candidate_count(1);
  if (!filled.has_ignore_eos()) filled.set_ignore_eos(false);
  return filled;
}

namespace {

// Prompt tokens that KEEP_END keeps.
int TruncatedLength(int max_sequence_tokens, int default_max_output_tokens,
                    const GenerationConfig& config) {
  if (config.has_max_output_tokens()) {
    return static_cast<int>(
        std::max<int64_t>(0, int64_t{max_sequence_tokens} - config.max_output_tokens()));
  }
  const int quarter = std::max(1, max_sequence_tokens / 4);
  return max_sequence_tokens - std::min(default_max_output_tokens, quarter);
}

void DropOldest(int n_dropped, std::optional<int32_t> bos_token_id, std::vector<int32_t>* prompt) {
  const bool keep_bos = bos_token_id.has_value() && prompt->front() == *bos_token_id;
  const auto first = prompt->begin() + (keep_bos ? 1 : 0);
  prompt->erase(first, first + n_dropped);
}

}  // namespace

absl::StatusOr<int> FitPrompt(int max_sequence_tokens, int default_max_output_tokens,
                              inference::v1::TruncationPolicy policy,
                              std::optional<int32_t> bos_token_id, GenerationConfig* config,
                              std::vector<int32_t>* prompt) {
  const int64_t n_prompt = prompt->size();
  const bool wants_output = !config->has_max_output_tokens() || config->max_output_tokens() > 0;
  int n_dropped = 0;
  if (policy == inference::v1::TRUNCATION_POLICY_KEEP_END) {
    const int kept = TruncatedLength(max_sequence_tokens, default_max_output_tokens, *config);
    if (kept < 1) {
      return BadField("config.max_output_tokens", absl::StrCat("is ", config->max_output_tokens(),
                                                               ", which leaves no room for "
                                                               "the prompt in the limit of ",
                                                               max_sequence_tokens));
    }
    if (n_prompt > kept) {
      n_dropped = static_cast<int>(n_prompt) - kept;
      DropOldest(n_dropped, bos_token_id, prompt);
    }
  } else if (n_prompt > max_sequence_tokens) {
    return ContextLengthExceeded(n_prompt, max_sequence_tokens);
  } else if (n_prompt == max_sequence_tokens && wants_output) {
    return Annotate(ContextLengthExceeded(n_prompt, max_sequence_tokens), "no output token fits");
  }
  if (!config->has_max_output_tokens()) {
    const int room = max_sequence_tokens - static_cast<int>(prompt->size());
    const uint32_t n = std::min(default_max_output_tokens, room);
    config->set_max_output_tokens(std::max(n, config->min_output_tokens()));
  }
  return n_dropped;
}

namespace {

void AddOnce(int32_t id, std::vector<int32_t>* ids) {
  if (std::find(ids->begin(), ids->end(), id) == ids->end()) ids->push_back(id);
}

std::vector<int32_t> StopTokenIds(const GenerationConfig& config, const ModelInfo& model) {
  std::vector<int32_t> ids;
  if (!config.ignore_eos()) {
    for (const int32_t id : model.eos_token_ids) AddOnce(id, &ids);
  }
  for (const int32_t id : config.stop_token_ids()) AddOnce(id, &ids);
  return ids;
}

SamplingParams MakeSamplingParams(const GenerationConfig& config, const OutputOptions& output,
                                  const ModelInfo& model, int index) {
  SamplingParams sampling;
  sampling.temperature = config.temperature();
  sampling.top_k = static_cast<int>(std::min<int64_t>(config.top_k(), model.vocab_size));
  sampling.top_p = config.top_p();
  sampling.min_p = config.min_p();
  sampling.repetition_penalty = config.repetition_penalty();
  sampling.presence_penalty = config.presence_penalty();
  sampling.frequency_penalty = config.frequency_penalty();
  sampling.seed = CandidateSeed(config.seed(), index);
  sampling.logit_bias.insert(config.logit_bias().begin(), config.logit_bias().end());
  sampling.min_output_tokens = static_cast<int>(config.min_output_tokens());
  if (sampling.min_output_tokens > 0) sampling.banned_until_min = StopTokenIds(config, model);
  sampling.n_top_logprobs = static_cast<int>(output.top_logprobs());
  sampling.want_logprob = output.logprobs() || output.top_logprobs() > 0;
  return sampling;
}

}  // namespace

GenerationRequest MakeGenerationRequest(const GenerationConfig& config, const OutputOptions& output,
                                        const ModelInfo& model, int index) {
  GenerationRequest request;
  // Beyond the model's length the number makes no difference, and this keeps it in an int.
  request.max_output_tokens =
      static_cast<int>(std::min<int64_t>(config.max_output_tokens(), model.max_sequence_tokens));
  request.stop_token_ids = StopTokenIds(config, model);
  request.sampling = MakeSamplingParams(config, output, model, index);
  request.want_trace = output.routing_trace();
  // All candidates have the same prompt: the first tells about it.
  request.score_prompt = index == 0 && output.prompt_logprobs();
  if (request.score_prompt) {
    request.n_prompt_top_logprobs = static_cast<int>(output.top_logprobs());
  }
  return request;
}

absl::Status CheckResponseSize(const OutputOptions& output, const ModelInfo& model,
                               int64_t n_prompt_tokens, int64_t limit) {
  constexpr int64_t kBytesPerLogprob = 40;  // id, number, raw bytes and framing of a long token
  int64_t per_token = 0;
  std::string field;
  if (output.prompt_logprobs()) {
    per_token += kBytesPerLogprob * (1 + output.top_logprobs());
    field = "output.prompt_logprobs";
  }
  if (output.routing_trace()) {
    constexpr int64_t kBytesPerExpert = 2 + 4 + 1;
    per_token += kBytesPerExpert * model.n_layers * model.top_k;
    field = "output.routing_trace";
  }
  const int64_t estimate = per_token * n_prompt_tokens;
  if (estimate <= limit) return absl::OkStatus();
  return BadField(field, absl::StrCat("would make a response of about ", estimate, " bytes for ",
                                      n_prompt_tokens, " prompt tokens, the limit is ", limit));
}

}  // namespace gatefold
