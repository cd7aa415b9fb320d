#pragma once

// What a quantised weight is, on every backend. gatefold/cuda/pack_weights.cu does the same on a
// device, where tests/gpu compares the two; so this needs nothing but the compiler.

#include <cstdint>
#include <cstring>

namespace gatefold {

// How weights are kept: in the checkpoint's type, or quantised when they are loaded.
enum class WeightKind { kCheckpoint, kInt8, kInt4 };

constexpr const char* WeightKindName(WeightKind kind) {
  return kind == WeightKind::kCheckpoint ? "checkpoint"
         : kind == WeightKind::kInt8     ? "int8"
                                         : "int4";
}

// Weights are quantised in groups of as many inputs of one output; the last one is padded with
// zeros.
inline constexpr int kQuantGroup = 32;

// A group stands for the weights q d, where d is the scale.
struct QuantisedGroup {
  uint16_t scale = 0;  // the bits of a bfloat16
  int8_t q[kQuantGroup] = {};
};

// kBits 8: q from -127 to 127, d = bfloat16(greatest magnitude / 127).
// kBits 4: q from -8 to 7, d = bfloat16(the first value of the greatest magnitude / -8).
// q = x / d, rounded to nearest with ties to even, within its range. Every operation rounds as
// written, without reciprocals, so that host and device give the same bits. Where a value is
// infinite or NaN the scale is NaN and all q are 0: a broken weight shows in every answer of its
// output, as it would without quantising, and is not made a plausible number.
template <int kBits>
inline QuantisedGroup Quantise(const float (&x)[kQuantGroup]) {
  static_assert(kBits == 8 || kBits == 4);
  constexpr uint32_t kSign = 0x80000000u, kInfinity = 0x7f800000u;
  QuantisedGroup to;
  uint32_t bits[kQuantGroup];
  uint32_t greatest = 0;  // magnitudes compare as their bits do, NaN above all
  std::memcpy(bits, x, sizeof bits);
  for (int i = 0; i < kQuantGroup; ++i) {
    const uint32_t magnitude = bits[i] & ~kSign;
    greatest = magnitude > greatest ? magnitude : greatest;
  }
  if (greatest >= kInfinity) {
    to.scale = 0x7fc0;
    return to;
  }
  uint32_t extreme = greatest;
  if (kBits == 4) {
    int first = 0;
    while ((bits[first] & ~kSign) != greatest) ++first;
    extreme = bits[first];
  }
  float d;
  std::memcpy(&d, &extreme, sizeof d);
  d /= kBits == 8 ? 127.0f : -8.0f;
  uint32_t scale;
  std::memcpy(&scale, &d, sizeof scale);
  scale = (scale + 0x7fffu + (scale >> 16 & 1)) >> 16;
  to.scale = static_cast<uint16_t>(scale);
  if ((scale & 0x7fffu) == 0) return to;
  scale <<= 16;
  std::memcpy(&d, &scale, sizeof d);
  // Not far out of range before it is clamped, however coarse a subnormal d is. Clamped as an
  // integer, which the compiler makes vectors of.
  constexpr int32_t kLeast = kBits == 8 ? -127 : -8, kMost = kBits == 8 ? 127 : 7;
  constexpr float kMagic = 12582912.0f;  // 1.5 * 2^23: adding it rounds to an integer
  for (int i = 0; i < kQuantGroup; ++i) {
    int32_t q = static_cast<int32_t>((x[i] / d + kMagic) - kMagic);
    q = q < kLeast ? kLeast : q;
    q = q > kMost ? kMost : q;
    to.q[i] = static_cast<int8_t>(q);
  }
  return to;
}

}  // namespace gatefold
