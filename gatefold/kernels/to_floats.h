#pragma once

#include <cstdint>

#include "gatefold/tensor/buffer.h"
#include "gatefold/tensor/dtype.h"
#include "gatefold/tensor/tensor_view.h"

namespace gatefold {

// The view's values as float32; empty for a view without data.
Buffer ToFloats(const TensorView& view);

// n consecutive elements of a type, aligned or not, as float32.
void ReadFloats(DType dtype, const void* from, int64_t n, float* to);

// Back again, bit for bit: the values must have come from elements of this type.
void WriteBack(DType dtype, const float* from, int64_t n, void* to);

}  // namespace gatefold
