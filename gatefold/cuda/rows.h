#pragma once

#include <cuda_bf16.h>
#include <cuda_runtime_api.h>

#include <cstdint>

namespace gatefold::cuda {

// What is done row by row on the device.
//
// Pointers are device memory aligned to 16 bytes; d is a multiple of 8. Launchers enqueue on
// `stream` and neither wait nor allocate. Errors: cudaErrorInvalidValue for a null or misaligned
// pointer or such a d, before anything is enqueued; else what the launch returned. n_rows 0 is
// nothing. Threads: safe, no state.
// Each row is one block's work, added up in an order that depends on d alone.

// x / sqrt(mean(x^2) + eps) * weight, as activations of one group of a product (tiles.h), rounded to
// bfloat16. x: [n_rows, d]. weight: [d]. activations: ActivationBytes(n_rows, d) bytes, padding
// included, which is zeroed.
cudaError_t RmsNormActivations(const float* x, const float* weight, float eps, void* activations,
                               int64_t n_rows, int64_t d, cudaStream_t stream);

// x += added. x, added: [n_rows, d].
cudaError_t AddRows(float* x, const float* added, int64_t n_rows, int64_t d, cudaStream_t stream);

// x[r] = table[token_ids[r]], widened. table: [vocab_size, d]. x: [n_rows, d], out.
// A token id outside the vocabulary, which the caller refuses, gives a row of NaN.
cudaError_t Embed(const __nv_bfloat16* table, int64_t vocab_size, const int32_t* token_ids,
                  float* x, int64_t n_rows, int64_t d, cudaStream_t stream);

// To the nearest bfloat16, ties to even, kept as float32. x: [n_rows, d].
cudaError_t RoundRows(float* x, int64_t n_rows, int64_t d, cudaStream_t stream);

// y[i] = x[rows[i]]. x: [*, d]. rows: [n_rows]. y: [n_rows, d].
cudaError_t GatherRows(const float* x, const int32_t* rows, float* y, int64_t n_rows, int64_t d,
                       cudaStream_t stream);

}  // namespace gatefold::cuda
