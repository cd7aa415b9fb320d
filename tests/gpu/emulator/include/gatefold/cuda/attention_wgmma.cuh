#pragma once

// The emulator's substitute for gatefold/cuda/attention_wgmma.cuh.

#include "gatefold/cuda/warp_ops.h"

namespace gatefold::cuda::sm90 {

inline void WgmmaScores(float (&d)[32], uint64_t a, uint64_t b, bool first) {
  emulator::StartProduct(
      {.n = 64, .sums = d, .a_descriptor = a, .b_descriptor = b, .clears = first});
}
template <int kSums>
void WgmmaValues(float (&d)[kSums], const uint32_t (&a)[4], uint64_t b) {
  emulator::StartProduct(
      {.n = 2 * kSums, .sums = d, .a = a, .b_descriptor = b, .b_is_transposed = true});
}

}  // namespace gatefold::cuda::sm90
