#pragma once

#include <cstdint>
#include <cstring>
#include <vector>

namespace gatefold::cuda {

// Numbers from -1 to 1 of a fixed sequence.
inline float NextNumber(uint32_t* state) {
  *state = *state * 1664525u + 1013904223u;
  return static_cast<float>(static_cast<int32_t>(*state)) * 0x1p-31f;
}

inline std::vector<float> Numbers(int64_t n, uint32_t seed) {
  std::vector<float> numbers(n);
  for (float& number : numbers) number = NextNumber(&seed);
  return numbers;
}

// The same as bfloat16: the upper halves of the float32 numbers.
inline std::vector<uint16_t> HalfNumbers(int64_t n, uint32_t seed) {
  std::vector<uint16_t> halves(n);
  for (uint16_t& half : halves) {
    const float number = NextNumber(&seed);
    uint32_t bits;
    static_assert(sizeof bits == sizeof number);
    std::memcpy(&bits, &number, sizeof bits);
    half = static_cast<uint16_t>(bits >> 16);
  }
  return halves;
}

}  // namespace gatefold::cuda
