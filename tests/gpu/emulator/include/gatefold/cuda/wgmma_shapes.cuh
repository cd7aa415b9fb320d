#pragma once

// The emulator's substitute for gatefold/cuda/wgmma_shapes.cuh.

#include "gatefold/cuda/warp_ops.h"

namespace gatefold::cuda::sm90 {

template <int kSums>
void Wgmma(float (&d)[kSums], uint64_t a, uint64_t b) {
  emulator::StartProduct({.n = 2 * kSums, .sums = d, .a_descriptor = a, .b_descriptor = b});
}
template <int kSums>
void Wgmma(float (&d)[kSums], const uint32_t (&a)[4], uint64_t b) {
  emulator::StartProduct({.n = 2 * kSums, .sums = d, .a = a, .b_descriptor = b});
}

}  // namespace gatefold::cuda::sm90
