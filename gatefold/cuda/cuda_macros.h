#pragma once

// For functions that return cudaError_t.
#define GF_CUDA_RETURN_IF_ERROR(expression)          \
  do {                                               \
    const cudaError_t error_ = (expression);         \
    if (error_ != cudaSuccess) return error_;        \
  } while (false)
