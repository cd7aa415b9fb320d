#pragma once

#include <cstdint>
#include <memory>
#include <string>
#include <utility>
#include <vector>

#include "absl/status/status.h"
#include "absl/time/time.h"
#include "gatefold/engine/step.h"

namespace gatefold {

// What the scheduler is asked to do: continue a prompt, or only score it. Token ids throughout; the
// gateway knows text. Already validated: ids are in the vocabulary, lengths within the model's.
struct GenerationRequest {
  std::string request_id;               // for logs
  std::string traceparent;              // W3C trace context, empty if none
  std::vector<int32_t> prompt;          // at least one
  std::vector<int32_t> resumed;         // output produced elsewhere, to go on after
  int max_output_tokens = 0;            // resumed ones included; 0: only compute the prompt
  std::vector<int32_t> stop_token_ids;  // end-of-sequence ids included, unless they are ignored
  SamplingParams sampling;              // n_prompt_tokens is filled in by the scheduler
  bool score_prompt = false;            // log-probabilities and argmax at every prompt position
  int n_prompt_top_logprobs = 0;
  bool want_last_logits = false;  // of the last prompt position; needs score_prompt
  bool want_trace = false;
  absl::Time deadline = absl::InfiniteFuture();
  int priority = 0;  // higher goes first among those waiting
};

enum class StopCause {
  kStopToken,
  kListener,  // OnToken returned false
  kMaxTokens,
  kContextLength,
  kPromptDone,  // max_output_tokens was 0
  kCancelled,
  kError,
};

struct GenerationEnd {
  StopCause cause = StopCause::kError;
  absl::Status status;      // not OK only for kError and kCancelled
  int32_t stop_token = -1;  // for kStopToken
  int n_output_tokens = 0;  // stop token not counted
};

// Which experts served consecutive positions. Entry (token, layer, k), heaviest first in k.
struct TraceChunk {
  int first_position = 0;
  int n_tokens = 0;
  std::vector<int> layers;  // those with a gate
  int top_k = 0;
  std::vector<uint16_t> experts;   // [n_tokens, layers, top_k]
  std::vector<float> weights;      // same
  std::vector<uint8_t> served_by;  // same; index into ClusterView's shard names
};

// Follows one generation. Called from a lane's thread, one call at a time, in this order:
// OnFirstStep once, OnDegraded, OnTrace and OnPromptScores any number of times, OnToken per token,
// OnEnd once and last, whether the others were called or not. Must not block.
class GenerationListener {
 public:
  virtual ~GenerationListener() = default;

  // It waits no longer: it is about to take part in a step. `n_cached` tokens of the prompt were
  // found in the prefix cache.
  virtual void OnFirstStep(int /*n_cached*/) {}

  // So many more tokens, of prompt or output, were computed without some of their experts.
  virtual void OnDegraded(int /*n_tokens*/) {}

  // The chunk covers prompt positions, or the position whose row drew the token told next.
  virtual void OnTrace(const TraceChunk& /*chunk*/) {}

  // Scores of prompt positions [first_position, ...): entry i is about the token after position
  // first_position + i (target -1 for the last one).
  virtual void OnPromptScores(int /*first_position*/, const std::vector<Sampled>& /*scores*/) {}

  // A new token (never a stop token). False ends the generation with kListener.
  virtual bool OnToken(const Sampled& token) = 0;

  virtual void OnEnd(const GenerationEnd& end) = 0;
};

}  // namespace gatefold
