#pragma once

#include <cstdint>

namespace gatefold::kernels {

// A gate turns logits into experts and weights. This one is Mixtral's: softmax over all experts,
// the top_k likeliest, their weights divided by their sum. Ties take the lower id; NaN counts as
// the least likely, so that ids are valid and distinct whatever comes in.
// logits: [n_rows, n_experts]. ids, weights: [n_rows, top_k], out, likeliest first.
void GateTopK(const float* logits, int64_t n_rows, int n_experts, int top_k, int32_t* ids,
              float* weights);

}  // namespace gatefold::kernels
