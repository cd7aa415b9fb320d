#pragma once

#include <cstdint>
#include <string>

#include "absl/status/status.h"
#include "absl/time/time.h"

namespace gatefold {

enum class RequestKind { kGenerate, kScore };

// How one request went, once it is over.
struct RequestReport {
  std::string request_id;   // empty: refused before it had one
  std::string refused_id;   // what it asked for then, if that could be an id
  std::string caller;       // name of its API key; empty: none was asked for
  std::string traceparent;  // W3C trace context; empty: none was given
  RequestKind kind = RequestKind::kGenerate;
  absl::Status status;  // what the caller got; kCancelled if the caller left
  int n_prompt_tokens = 0;
  int n_cached_tokens = 0;
  int n_output_tokens = 0;        // over all candidates, resumed ones not counted
  int n_degraded_tokens = 0;      // computed without some of their experts
  int n_truncated_tokens = 0;     // of its prompt, left out because it allowed that
  bool mixed_numerics = false;    // shards of different numerics classes took part
  uint64_t topology_version = 0;  // when it ended
  absl::Duration queue = absl::InfiniteDuration();  // until its first step; Infinite: it had none
  absl::Duration end_to_end;
};

// Told about requests, for metrics. Called from the threads of the scheduler, the preparation pool
// and the server: must not block. Threads: safe.
class GatewayObserver {
 public:
  virtual ~GatewayObserver() = default;

  // Every OnRequestStarted is followed by one OnRequestEnded, for refused requests too.
  virtual void OnRequestStarted(RequestKind kind) = 0;
  virtual void OnRequestEnded(const RequestReport& report) = 0;

  // The first token of a request, after its arrival.
  virtual void OnFirstToken(absl::Duration ttft) = 0;

  // Every later token of a candidate, after the token before: per token, not per message sent.
  virtual void OnNextToken(absl::Duration itl) = 0;
};

}  // namespace gatefold
