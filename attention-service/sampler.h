#pragma once

#include <cstdint>

#include "absl/types/span.h"
#include "gatefold/engine/step.h"

namespace gatefold {

// A uniform number in [0, 1) that depends on (seed, position) alone: Philox4x32-10 (Salmon et al.,
// "Parallel random numbers: as easy as 1, 2, 3", 2011) with the seed as key and the position as
// counter. It is what makes a sampled continuation the same after a failover.
double UniformAt(uint64_t seed, uint64_t position);

// Log-probabilities of a distribution over the vocabulary without storing them.
struct LogSum {
  float max = 0;
  // Log of the sum of exp(logit), natural; where max is infinite, of exp(0) of those that have it.
  double log_sum = 0;
};
LogSum LogSumExp(absl::Span<const float> logits);

// The limit where logits are infinite: those of +inf share everything, and so do all where there is
// nothing but -inf. NaN counts as -inf.
float Logprob(float logit, const LogSum& log_sum);

bool HasNan(absl::Span<const float> logits);

// The highest logit's token; ties to the lower id; NaN never wins.
int32_t Argmax(absl::Span<const float> logits);

// The n most likely tokens with their log-probabilities, likeliest first, ties to the lower id.
std::vector<std::pair<int32_t, float>> TopLogprobs(absl::Span<const float> logits, int n,
                                                   const LogSum& log_sum);

// Whether the token at position + 1 is drawn from the logits as they are: without penalties, biases
// and bans.
bool DrawsFromPlainLogits(const SamplingParams& params, int position);

// Draws the token at position + 1. In this order: repetition, presence and frequency penalties,
// logit bias, bans, temperature, top_k, top_p, min_p, draw. `tokens` is the sequence up to and
// with `position`; those from params.n_prompt_tokens on are output. The repetition penalty counts
// prompt and output, presence and frequency count output.
// Deterministic in its arguments. Threads: safe.
int32_t DrawToken(absl::Span<const float> logits, const SamplingParams& params,
                  absl::Span<const int32_t> tokens, int position);

// What is reported of a token that was drawn: log-probabilities, of the unmodified logits, as far
// as they are wanted, and the argmax.
Sampled Describe(absl::Span<const float> logits, const SamplingParams& params, int32_t token);

}  // namespace gatefold
