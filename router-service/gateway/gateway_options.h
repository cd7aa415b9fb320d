#pragma once

#include <cstddef>
#include <cstdint>

#include "absl/status/status.h"
#include "absl/time/time.h"

namespace gatefold {

// How large a request may be. Beyond a limit it is refused with INVALID_ARGUMENT naming the field
// and both numbers, before work is spent on it.
struct RequestLimits {
  // Text of a prompt, or of all messages of a conversation together. Tokenising takes under a
  // second per MiB.
  int64_t max_prompt_bytes = 1 << 20;
  int max_messages = 1024;                     // of a conversation
  static constexpr size_t kMaxRoleBytes = 64;  // of each
  // Ids where the model's length is no limit: of a prompt that is cut to fit or only counted (as
  // many as the model takes are always allowed), and of text to make from them.
  int max_token_ids = 1 << 18;
  int max_request_id_bytes = 128;
  int max_candidates = 8;
  int max_stop_sequences = 16;
  int max_stop_sequence_bytes = 256;
  int max_stop_token_ids = 64;
  int max_logit_bias = 1024;  // entries
  int max_top_logprobs = 20;
  int max_priority = 100;  // and at least its negative
  // max_output_tokens where the request leaves it out (less where the model's length allows less).
  int default_max_output_tokens = 1024;
  // What prompt log-probabilities, a prompt's routing trace and logits may come to in one response,
  // estimated before the request starts.
  int64_t max_response_bytes = 32 << 20;
};

struct GatewayOptions {
  RequestLimits limits;

  // Generations and scores alive at once, queued ones included; beyond it RESOURCE_EXHAUSTED.
  int max_live_requests = 1024;

  // Then a request ends with DEADLINE_EXCEEDED, if it has no deadline of its own that is sooner: it
  // may wait in the queue, or for an expert that nobody holds.
  absl::Duration max_request_time = absl::Hours(24);

  // Threads that validate, render and tokenise, so that no poll thread does; and how many requests
  // may wait for them before more are refused with RESOURCE_EXHAUSTED.
  int n_preparation_threads = 2;
  int max_preparing = 256;

  // A stream whose reader is slow collects its events. They are merged up to max_delta_bytes each,
  // and a request with more than max_unread_bytes of them is ended with RESOURCE_EXHAUSTED.
  int64_t max_delta_bytes = 256 << 10;
  int64_t max_unread_bytes = 4 << 20;

  // What is kept of generations that ended (ClusterService's GetGenerationTrace), and how large the
  // routes of one may be to be kept.
  int max_kept_generations = 1024;
  int64_t max_kept_bytes = 16 << 20;
  int64_t max_kept_routing_bytes = 256 << 10;

  // Delay that refusals for overload advise.
  absl::Duration retry_delay = absl::Seconds(1);

  // Names the first option that makes no sense.
  absl::Status Validate() const;
};

}  // namespace gatefold
