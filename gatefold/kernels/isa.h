#pragma once

#include <cstdint>

#include "absl/status/status.h"
#include "absl/strings/string_view.h"
#include "gatefold/kernels/kernel_table.h"
#include "gatefold/tensor/quantise.h"

namespace gatefold::kernels {

// "auto" (the best this machine has), "scalar", "avx2" or "avx512". Call it once, before any
// kernel runs; without it the choice is "auto". All give the same bits, at very different speeds.
// Errors: InvalidArgument for another name; FailedPrecondition if the machine lacks it.
absl::Status SelectIsa(absl::string_view name);

const KernelTable& Kernels();

// A hash of what a fixed self-test of the chosen kernels computes. Two processes of equal class
// give equal bits for equal rows. Quantised weights are a class of their own: the self-test
// quantises, too.
uint64_t NumericsClass(WeightKind kind = WeightKind::kCheckpoint);

}  // namespace gatefold::kernels
