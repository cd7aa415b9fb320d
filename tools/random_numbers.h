#pragma once

#include <cmath>
#include <cstdint>
#include <cstring>

#include "absl/strings/string_view.h"
#include "gatefold/tensor/dtype.h"

namespace gatefold {

// A sequence of uniform random numbers that is known by its place: element i is a function of
// (seed, name, i). Of 16 bits each, which is more than bfloat16 and half have room for.
class RandomNumbers {
 public:
  RandomNumbers(uint64_t seed, absl::string_view name, float mean, float deviation)
      : key_(Mix(seed)), mean_(mean), step_(deviation * std::sqrt(3.0f) / 32768) {
    for (char c : name) key_ = Mix(key_ ^ static_cast<unsigned char>(c));
  }

  // Elements [begin, begin + count) as `dtype` to `out`; `begin` is a multiple of 4.
  void Fill(DType dtype, int64_t begin, int64_t count, void* out) const {
    switch (dtype) {
      case DType::kF32:
        return FillAs<float>(begin, count, out, [](float v) { return v; });
      case DType::kBF16:
        return FillAs<uint16_t>(begin, count, out, FloatToBF16);
      case DType::kF16:
        return FillAs<uint16_t>(begin, count, out, FloatToF16);
    }
  }

  // Rounds to nearest, ties to even. For magnitudes below 65504.
  static uint16_t FloatToF16(float value) {
    const float magnitude = std::fabs(value);
    const int sign = std::signbit(value) ? 0x8000 : 0;
    if (magnitude < 0x1p-14f) return static_cast<uint16_t>(sign | std::lrint(magnitude * 0x1p24f));
    int exponent;
    const float fraction = std::frexp(magnitude, &exponent);  // in [0.5, 1)
    const long mantissa = std::lrint(fraction * 2048);        // in [1024, 2048]
    return static_cast<uint16_t>(sign | (((exponent + 14) << 10) + (mantissa - 1024)));
  }

 private:
  static uint64_t Mix(uint64_t x) {
    x += 0x9e3779b97f4a7c15u;
    x = (x ^ (x >> 30)) * 0xbf58476d1ce4e5b9u;
    x = (x ^ (x >> 27)) * 0x94d049bb133111ebu;
    return x ^ (x >> 31);
  }

  template <typename Stored, typename Convert>
  void FillAs(int64_t begin, int64_t count, void* out, Convert convert) const {
    auto* stored = static_cast<Stored*>(out);
    for (int64_t i = 0; i < count; i += 4) {
      const uint64_t bits = Mix(key_ + static_cast<uint64_t>(begin + i) / 4);
      const int64_t n = count - i < 4 ? count - i : 4;
      for (int64_t j = 0; j < n; ++j) {
        const auto part = static_cast<int16_t>(bits >> (16 * j));
        stored[i + j] = convert(mean_ + step_ * (static_cast<float>(part) + 0.5f));
      }
    }
  }

  uint64_t key_;
  float mean_;
  float step_;
};

}  // namespace gatefold
