#include "gatefold/kernels/to_floats.h"

#include <cstring>

namespace gatefold {
namespace {

// The half that F16ToFloat made this of.
uint16_t ToF16Exactly(uint32_t bits) {
  const uint32_t sign = bits >> 16 & 0x8000u, exponent = bits >> 23 & 0xffu,
                 mantissa = bits & 0x7fffffu;
  uint32_t half = 0;
  if (exponent == 0xff) {
    half = 0x7c00u | mantissa >> 13;
  } else if (exponent > 112) {
    half = (exponent - 112) << 10 | mantissa >> 13;
  } else if (exponent > 0) {
    half = (0x800000u | mantissa) >> (126 - exponent);  // a subnormal half
  }
  return static_cast<uint16_t>(sign | half);
}

}  // namespace

void ReadFloats(DType dtype, const void* from, int64_t n, float* to) {
  if (dtype == DType::kF32) {
    std::memcpy(to, from, n * sizeof(float));
    return;
  }
  const char* bytes = static_cast<const char*>(from);
  for (int64_t i = 0; i < n; ++i) {
    uint16_t half;
    std::memcpy(&half, bytes + 2 * i, sizeof half);
    to[i] = dtype == DType::kBF16 ? BF16ToFloat(half) : F16ToFloat(half);
  }
}

Buffer ToFloats(const TensorView& view) {
  if (view.data == nullptr) return Buffer();
  Buffer floats(view.n_elements() * sizeof(float));
  ReadFloats(view.dtype, view.data, view.n_elements(), floats.as<float>());
  return floats;
}

void WriteBack(DType dtype, const float* from, int64_t n, void* to) {
  if (dtype == DType::kF32) {
    std::memcpy(to, from, n * sizeof(float));
    return;
  }
  char* bytes = static_cast<char*>(to);
  for (int64_t i = 0; i < n; ++i) {
    uint32_t bits;
    std::memcpy(&bits, from + i, sizeof bits);
    const uint16_t half =
        dtype == DType::kBF16 ? static_cast<uint16_t>(bits >> 16) : ToF16Exactly(bits);
    std::memcpy(bytes + 2 * i, &half, sizeof half);
  }
}

}  // namespace gatefold
