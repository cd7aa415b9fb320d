#pragma once

#include <cstdint>
#include <cstring>

namespace gatefold::cuda {

// To the nearest bfloat16, ties to even, as bits.
inline uint16_t ToBF16(float value) {
  uint32_t bits;
  std::memcpy(&bits, &value, 4);
  return static_cast<uint16_t>((bits + 0x7FFF + ((bits >> 16) & 1)) >> 16);
}
inline float FromBF16(uint16_t half) {
  const uint32_t bits = static_cast<uint32_t>(half) << 16;
  float value;
  std::memcpy(&value, &bits, 4);
  return value;
}
inline double RoundBF16(double value) { return FromBF16(ToBF16(static_cast<float>(value))); }

}  // namespace gatefold::cuda
