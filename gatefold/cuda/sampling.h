#pragma once

#include <cuda_runtime_api.h>

#include <cstdint>

namespace gatefold::cuda {

// From logits to tokens on the device. Each row is one block's work and depends on nothing else.
// Penalties, biases and bans are no business of theirs.
//
// Pointers are device memory; logits: [n_rows, vocab_size] float32. Launchers enqueue on `stream`
// and neither wait nor allocate. Errors: cudaErrorInvalidValue for a null pointer, n_rows < 0 or
// vocab_size outside 1 to kMaxSampleVocab, before anything is enqueued; else what the launch returned.
// Threads: safe, no state.

// The most that a model may have (gatefold/model/config_bounds.h). Weights of so many tokens, 2^40 each at
// most, add up within 64 bits.
inline constexpr int64_t kMaxSampleVocab = int64_t{1} << 22;

// How a row's token is drawn. In this order: temperature, top_k, top_p, min_p, draw.
struct SampleRow {
  uint64_t seed = 0;
  int64_t position = 0;   // of the row; the token drawn stands at position + 1
  float temperature = 0;  // 0: the likeliest
  int32_t top_k = 0;      // 0: all
  float top_p = 1;
  float min_p = 0;
};

struct DrawnToken {
  int32_t token = 0;
  int32_t argmax = 0;   // the likeliest: ties to the lower id; NaN never wins; without any number, 0
  int32_t has_nan = 0;  // whether any logit is NaN
};

// The uniform number of (seed, position + 1) is that of the CPU's sampler, bit for bit, and the
// order in which it is spent is the same: likeliest first after top_k or top_p, else by id.
// Weights are counted in whole units of 2^-40 of the likeliest token's, from float32 exponentials,
// so that their sums do not depend on an order. So the token is the CPU's unless something falls
// within some 1e-6 of a border: the uniform number of that between two tokens, or a token's own
// weight of where top_p or min_p cuts, which leaves it in or out for every draw.
// rows: [n_rows]. drawn: [n_rows], out.
cudaError_t Sample(const float* logits, int64_t n_rows, int64_t vocab_size, const SampleRow* rows,
                   DrawnToken* drawn, cudaStream_t stream);

}  // namespace gatefold::cuda
