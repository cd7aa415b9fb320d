#pragma once

#include <cstdint>
#include <cstring>
#include <random>
#include <vector>

#include "gatefold/tensor/dtype.h"
#include "gatefold/tensor/tensor_view.h"

namespace gatefold::bench {

inline std::vector<float> RandomFloats(size_t n) {
  std::minstd_rand engine(1);
  std::vector<float> values(n);
  for (float& value : values) value = static_cast<float>(engine() % 2001) * 1e-3f - 1.0f;
  return values;
}

// Bytes of n weights near zero, of any type.
inline std::vector<char> RandomWeights(DType dtype, size_t n) {
  std::minstd_rand engine(2);
  std::vector<char> bytes(n * DTypeBytes(dtype));
  for (size_t i = 0; i < n; ++i) {
    const float value = (static_cast<float>(engine() % 2001) - 1000.0f) * 3e-5f;
    const uint16_t bf16 = FloatToBF16(value);
    const uint16_t f16 = static_cast<uint16_t>(engine() & 0xa3ff);  // below 2^-6
    const void* from = &value;
    if (dtype == DType::kBF16) from = &bf16;
    if (dtype == DType::kF16) from = &f16;
    std::memcpy(&bytes[i * DTypeBytes(dtype)], from, DTypeBytes(dtype));
  }
  return bytes;
}

}  // namespace gatefold::bench
