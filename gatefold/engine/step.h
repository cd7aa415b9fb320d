#pragma once

#include <cstdint>
#include <map>
#include <string>
#include <utility>
#include <vector>

namespace gatefold {

// One sequence within one router; chosen by the router, never reused.
using SequenceId = uint64_t;

// How one sequence's next tokens are drawn. Fixed when the sequence is opened, so that a token
// depends on its own sequence alone. Defaults draw from the plain distribution.
struct SamplingParams {
  float temperature = 1.0f;  // 0: greedy
  int top_k = 0;             // 0: off
  float top_p = 1.0f;        // 1: off
  float min_p = 0.0f;        // 0: off
  float repetition_penalty = 1.0f;
  float presence_penalty = 0.0f;
  float frequency_penalty = 0.0f;
  uint64_t seed = 0;
  std::map<int32_t, float> logit_bias;
  std::vector<int32_t> banned;            // never drawn
  std::vector<int32_t> banned_until_min;  // not drawn before min_output_tokens
  int min_output_tokens = 0;
  int n_prompt_tokens = 0;  // tokens from here on count as output
  int n_top_logprobs = 0;
  bool want_logprob = false;  // of the drawn token; computing it costs a pass over the vocabulary
};

// What an attention-service must know of a sequence before its first span.
struct SequenceSpec {
  SequenceId id = 0;
  int n_positions = 0;  // it may come to have so many
  int n_reserved = 0;   // KV blocks for so many are taken at once, others as it grows; 0: for all
  // Its tokens so far. Keys and values of the first `max_cached` of them may come from the prefix
  // cache; those of the others are to be computed.
  std::vector<int32_t> tokens;
  int max_cached = 0;
  SamplingParams sampling;
};

// `n_tokens` consecutive positions of one sequence: one decode row, or a chunk of a prefill. Its
// rows are consecutive in the step.
struct StepSpan {
  SequenceId sequence = 0;
  int first_position = 0;
  int n_tokens = 0;
};

// Wants a token after row `row` of the step, or the log-probability of a given one.
struct SampleRequest {
  int row = 0;
  SequenceId sequence = 0;
  int position = 0;  // of the row; the token gets position + 1
  bool score = false;
  int32_t target = -1;  // with score: -1 wants only the best tokens
  int n_top_logprobs = 0;
  bool want_logits = false;
};

struct Sampled {
  int32_t token = -1;  // drawn, or the target that was scored
  float logprob = 0;   // natural log, of the unmodified distribution; 0 if it was not wanted
  int32_t argmax = -1;
  std::vector<std::pair<int32_t, float>> top;  // most likely first
  std::vector<float> logits;                   // if wanted
  bool not_a_number = false;  // some logits are NaN: nothing of the above means anything
};

// One pass through all layers for a batch of rows: decode rows and prefill chunks mixed.
struct Step {
  uint64_t id = 0;  // counts up within the lane
  int lane = 0;
  std::vector<StepSpan> spans;
  std::vector<int32_t> token_ids;      // [n_rows]
  std::vector<SampleRequest> samples;  // ascending rows
  bool want_trace = false;
  std::string traceparent;  // W3C trace context of the first request that has one; "": none has

  int n_rows() const { return static_cast<int>(token_ids.size()); }
};

}  // namespace gatefold
