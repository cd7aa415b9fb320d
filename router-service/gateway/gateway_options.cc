#include "router-service/gateway/gateway_options.h"

#include <utility>

#include "absl/strings/str_cat.h"

namespace gatefold {

absl::Status GatewayOptions::Validate() const {
  const std::pair<const char*, int64_t> positive[] = {
      {"limits.max_prompt_bytes", limits.max_prompt_bytes},
      {"limits.max_messages", limits.max_messages},
      {"limits.max_token_ids", limits.max_token_ids},
      {"limits.max_request_id_bytes", limits.max_request_id_bytes},
      {"limits.max_candidates", limits.max_candidates},
      {"limits.max_stop_sequence_bytes", limits.max_stop_sequence_bytes},
      {"limits.default_max_output_tokens", limits.default_max_output_tokens},
      {"limits.max_response_bytes", limits.max_response_bytes},
      {"max_live_requests", max_live_requests},
      {"n_preparation_threads", n_preparation_threads},
      {"max_preparing", max_preparing},
      {"max_delta_bytes", max_delta_bytes},
      {"max_unread_bytes", max_unread_bytes},
      {"max_kept_generations", max_kept_generations},
      {"max_kept_bytes", max_kept_bytes},
      {"max_kept_routing_bytes", max_kept_routing_bytes},
  };
  for (const auto& [name, value] : positive) {
    if (value < 1) {
      return absl::InvalidArgumentError(absl::StrCat(name, " is ", value, ", must be at least 1"));
    }
  }
  const std::pair<const char*, int64_t> not_negative[] = {
      {"limits.max_stop_sequences", limits.max_stop_sequences},
      {"limits.max_stop_token_ids", limits.max_stop_token_ids},
      {"limits.max_logit_bias", limits.max_logit_bias},
      {"limits.max_top_logprobs", limits.max_top_logprobs},
      {"limits.max_priority", limits.max_priority},
  };
  for (const auto& [name, value] : not_negative) {
    if (value < 0) {
      return absl::InvalidArgumentError(absl::StrCat(name, " is ", value, ", must be at least 0"));
    }
  }
  if (n_preparation_threads > 64) {
    return absl::InvalidArgumentError(
        absl::StrCat("n_preparation_threads is ", n_preparation_threads, ", must be at most 64"));
  }
  if (retry_delay < absl::ZeroDuration()) {
    return absl::InvalidArgumentError(absl::StrCat(
        "retry_delay is ", absl::FormatDuration(retry_delay), ", must not be negative"));
  }
  return absl::OkStatus();
}

}  // namespace gatefold
