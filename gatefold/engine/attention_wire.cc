#include "gatefold/engine/attention_wire.h"

#include <algorithm>
#include <cmath>
#include <limits>

#include "absl/strings/str_cat.h"
#include "gatefold/base/status_macros.h"

namespace gatefold {
namespace {

constexpr uint32_t kMaxPositions = std::numeric_limits<int32_t>::max() / 2;
constexpr uint32_t kMaxTopLogprobs = 1024;

absl::Status Below(absl::string_view field, uint64_t value, uint64_t limit) {
  if (value <= limit) return absl::OkStatus();
  return absl::InvalidArgumentError(
      absl::StrCat(field, " is ", value, ", must be at most ", limit));
}

absl::Status Within(absl::string_view field, float value, float low, float high) {
  if (value >= low && value <= high) return absl::OkStatus();  // false for NaN
  return absl::InvalidArgumentError(
      absl::StrCat(field, " is ", value, ", must be within ", low, " and ", high));
}

absl::StatusOr<SamplingParams> FromProto(const internal::v1::Sampling& message) {
  constexpr float kHuge = 1e30f;
  constexpr float kTiny = std::numeric_limits<float>::denorm_min();
  GF_RETURN_IF_ERROR(Within("sampling.temperature", message.temperature(), 0, kHuge));
  GF_RETURN_IF_ERROR(Below("sampling.top_k", message.top_k(), kMaxPositions));
  GF_RETURN_IF_ERROR(Within("sampling.top_p", message.top_p(), 0, 1));
  GF_RETURN_IF_ERROR(Within("sampling.min_p", message.min_p(), 0, 1));
  GF_RETURN_IF_ERROR(
      Within("sampling.repetition_penalty", message.repetition_penalty(), kTiny, kHuge));
  GF_RETURN_IF_ERROR(
      Within("sampling.presence_penalty", message.presence_penalty(), -kHuge, kHuge));
  GF_RETURN_IF_ERROR(
      Within("sampling.frequency_penalty", message.frequency_penalty(), -kHuge, kHuge));
  GF_RETURN_IF_ERROR(
      Below("sampling.min_output_tokens", message.min_output_tokens(), kMaxPositions));
  GF_RETURN_IF_ERROR(Below("sampling.n_prompt_tokens", message.n_prompt_tokens(), kMaxPositions));
  GF_RETURN_IF_ERROR(Below("sampling.n_top_logprobs", message.n_top_logprobs(), kMaxTopLogprobs));
  SamplingParams params;
  for (const auto& [token, bias] : message.logit_bias()) {
    GF_RETURN_IF_ERROR(Within("sampling.logit_bias", bias, -kHuge, kHuge));
    params.logit_bias[token] = bias;
  }
  params.temperature = message.temperature();
  params.top_k = static_cast<int>(message.top_k());
  params.top_p = message.top_p();
  params.min_p = message.min_p();
  params.repetition_penalty = message.repetition_penalty();
  params.presence_penalty = message.presence_penalty();
  params.frequency_penalty = message.frequency_penalty();
  params.seed = message.seed();
  params.banned.assign(message.banned_token_ids().begin(), message.banned_token_ids().end());
  params.banned_until_min.assign(message.banned_until_min_token_ids().begin(),
                                 message.banned_until_min_token_ids().end());
  params.min_output_tokens = static_cast<int>(message.min_output_tokens());
  params.n_prompt_tokens = static_cast<int>(message.n_prompt_tokens());
  params.n_top_logprobs = static_cast<int>(message.n_top_logprobs());
  params.want_logprob = message.want_logprob();
  return params;
}

}  // namespace

void ToProto(const SequenceSpec& spec, internal::v1::OpenSequence* message) {
  message->set_sequence_id(spec.id);
  message->set_n_positions(spec.n_positions);
  message->set_n_reserved(spec.n_reserved);
  const int max_cached = std::min(spec.max_cached, static_cast<int>(spec.tokens.size()));
  message->mutable_token_ids()->Assign(spec.tokens.begin(), spec.tokens.begin() + max_cached);
  message->set_max_cached(max_cached);
  const SamplingParams& params = spec.sampling;
  internal::v1::Sampling* sampling = message->mutable_sampling();
  sampling->set_temperature(params.temperature);
  sampling->set_top_k(params.top_k);
  sampling->set_top_p(params.top_p);
  sampling->set_min_p(params.min_p);
  sampling->set_repetition_penalty(params.repetition_penalty);
  sampling->set_presence_penalty(params.presence_penalty);
  sampling->set_frequency_penalty(params.frequency_penalty);
  sampling->set_seed(params.seed);
  sampling->mutable_logit_bias()->insert(params.logit_bias.begin(), params.logit_bias.end());
  sampling->mutable_banned_token_ids()->Assign(params.banned.begin(), params.banned.end());
  sampling->mutable_banned_until_min_token_ids()->Assign(params.banned_until_min.begin(),
                                                         params.banned_until_min.end());
  sampling->set_min_output_tokens(params.min_output_tokens);
  sampling->set_n_prompt_tokens(params.n_prompt_tokens);
  sampling->set_n_top_logprobs(params.n_top_logprobs);
  sampling->set_want_logprob(params.want_logprob);
}

absl::StatusOr<SequenceSpec> FromProto(const internal::v1::OpenSequence& message) {
  GF_RETURN_IF_ERROR(Below("open.n_positions", message.n_positions(), kMaxPositions));
  SequenceSpec spec;
  spec.id = message.sequence_id();
  spec.n_positions = static_cast<int>(message.n_positions());
  GF_RETURN_IF_ERROR(Below("open.n_reserved", message.n_reserved(), message.n_positions()));
  spec.n_reserved = static_cast<int>(message.n_reserved());
  GF_RETURN_IF_ERROR(Below("open.token_ids", message.token_ids_size(), message.n_positions()));
  spec.tokens.assign(message.token_ids().begin(), message.token_ids().end());
  GF_RETURN_IF_ERROR(Below("open.max_cached", message.max_cached(), message.token_ids_size()));
  spec.max_cached = static_cast<int>(message.max_cached());
  GF_ASSIGN_OR_RETURN(spec.sampling, FromProto(message.sampling()));
  return spec;
}

void ToProto(const StepSpan& span, internal::v1::Span* message) {
  message->set_sequence_id(span.sequence);
  message->set_first_position(span.first_position);
  message->set_n_tokens(span.n_tokens);
}

absl::StatusOr<std::vector<StepSpan>> SpansFromProto(
    const internal::v1::AttentionServiceRunRequest& request) {
  std::vector<StepSpan> spans;
  spans.reserve(request.spans_size());
  uint64_t n_rows = 0;
  for (const internal::v1::Span& message : request.spans()) {
    GF_RETURN_IF_ERROR(Below("spans.first_position", message.first_position(), kMaxPositions));
    GF_RETURN_IF_ERROR(Below("spans.n_tokens", message.n_tokens(), kMaxPositions));
    if (message.n_tokens() == 0) {
      return absl::InvalidArgumentError("spans.n_tokens is 0, must be at least 1");
    }
    n_rows += message.n_tokens();
    spans.push_back({message.sequence_id(), static_cast<int>(message.first_position()),
                     static_cast<int>(message.n_tokens())});
  }
  if (n_rows != request.n_rows()) {
    return absl::InvalidArgumentError(
        absl::StrCat("spans have ", n_rows, " rows, n_rows says ", request.n_rows()));
  }
  return spans;
}

void ToProto(const SampleRequest& request, internal::v1::SampleRow* message) {
  message->set_sequence_id(request.sequence);
  message->set_position(request.position);
  message->set_score(request.score);
  message->set_target_token_id(request.target);
  message->set_n_top_logprobs(request.n_top_logprobs);
  message->set_want_logits(request.want_logits);
}

absl::StatusOr<std::vector<SampleRequest>> SamplesFromProto(
    const internal::v1::AttentionServiceRunRequest& request) {
  if (request.samples_size() != static_cast<int64_t>(request.n_rows())) {
    return absl::InvalidArgumentError(absl::StrCat("samples has ", request.samples_size(),
                                                   " entries, n_rows says ", request.n_rows()));
  }
  std::vector<SampleRequest> samples;
  samples.reserve(request.samples_size());
  for (const internal::v1::SampleRow& message : request.samples()) {
    GF_RETURN_IF_ERROR(Below("samples.position", message.position(), kMaxPositions));
    GF_RETURN_IF_ERROR(Below("samples.n_top_logprobs", message.n_top_logprobs(), kMaxTopLogprobs));
    SampleRequest sample;
    sample.row = static_cast<int>(samples.size());
    sample.sequence = message.sequence_id();
    sample.position = static_cast<int>(message.position());
    sample.score = message.score();
    sample.target = message.target_token_id();
    sample.n_top_logprobs = static_cast<int>(message.n_top_logprobs());
    sample.want_logits = message.want_logits();
    samples.push_back(sample);
  }
  return samples;
}

void ToProto(const Sampled& sampled, internal::v1::SampledRow* message) {
  message->set_token_id(sampled.token);
  message->set_logprob(sampled.logprob);
  message->set_argmax(sampled.argmax);
  for (const auto& [token, logprob] : sampled.top) {
    internal::v1::TokenLogprob* top = message->add_top();
    top->set_token_id(token);
    top->set_logprob(logprob);
  }
  message->mutable_logits()->Assign(sampled.logits.begin(), sampled.logits.end());
  message->set_not_a_number(sampled.not_a_number);
}

Sampled FromProto(const internal::v1::SampledRow& message) {
  Sampled sampled;
  sampled.token = message.token_id();
  sampled.logprob = message.logprob();
  sampled.argmax = message.argmax();
  for (const internal::v1::TokenLogprob& top : message.top()) {
    sampled.top.push_back({top.token_id(), top.logprob()});
  }
  sampled.logits.assign(message.logits().begin(), message.logits().end());
  sampled.not_a_number = message.not_a_number();
  return sampled;
}

}  // namespace gatefold
