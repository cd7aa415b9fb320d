#include "gatefold/model/rope.h"

#include <algorithm>
#include <cmath>

#include "gatefold/base/check.h"

namespace gatefold {
namespace {

constexpr double kPi = 3.14159265358979323846;

// theta^(2i/d): one over the frequencies. Powers and quotients in float32, as the reference
// computes them: frequencies are multiplied by positions, so a last bit here is a visible angle at
// position 100,000.
std::vector<float> Waves(double theta, int head_dim) {
  std::vector<float> waves(static_cast<size_t>(head_dim / 2));
  for (int i = 0; i < head_dim / 2; ++i) {
    const float exponent = static_cast<float>(2 * i) / static_cast<float>(head_dim);
    waves[i] = static_cast<float>(std::pow(theta, static_cast<double>(exponent)));
  }
  return waves;
}

// Keeps short waves, stretches long ones by `factor`, and blends those between.
void ScaleLlama3(const RopeConfig& rope, std::vector<float>* inv_freq) {
  const float factor = static_cast<float>(rope.factor);
  const float low = static_cast<float>(rope.low_freq_factor);
  const float high = static_cast<float>(rope.high_freq_factor);
  const float original = static_cast<float>(rope.original_max_positions);
  for (float& frequency : *inv_freq) {
    const float wavelength = static_cast<float>(2 * kPi) / frequency;
    if (wavelength < original / high) continue;
    const float stretched = frequency / factor;
    if (wavelength > original / low) {
      frequency = stretched;
      continue;
    }
    const float blend = (original / wavelength - low) / (high - low);
    frequency = (1 - blend) * stretched + blend * frequency;
  }
}

// The pair (a real number) that turns `rotations` times within the original positions.
double YarnPair(const RopeConfig& rope, int head_dim, double rotations) {
  return head_dim * std::log(rope.original_max_positions / (rotations * 2 * kPi)) /
         (2 * std::log(rope.theta));
}

// Stretches by `factor` what turns seldom within the original positions, keeps what turns often,
// and blends the pairs between along a ramp.
std::vector<float> YarnFrequencies(const RopeConfig& rope, int head_dim) {
  double low = YarnPair(rope, head_dim, rope.beta_fast);
  double high = YarnPair(rope, head_dim, rope.beta_slow);
  if (rope.truncate) {
    low = std::floor(low);
    high = std::ceil(high);
  }
  low = std::max(low, 0.0);
  high = std::min(high, static_cast<double>(head_dim - 1));
  if (low == high) high += 0.001;
  std::vector<float> frequencies = Waves(rope.theta, head_dim);
  for (size_t i = 0; i < frequencies.size(); ++i) {
    const float wave = frequencies[i];
    const float ramp = std::clamp(
        (static_cast<float>(i) - static_cast<float>(low)) / static_cast<float>(high - low), 0.0f,
        1.0f);
    const float kept = 1 - ramp;
    frequencies[i] = 1 / (static_cast<float>(rope.factor) * wave) * (1 - kept) + 1 / wave * kept;
  }
  return frequencies;
}

double YarnMagnitude(double scale, double coefficient) {
  return scale <= 1 ? 1 : 0.1 * coefficient * std::log(scale) + 1;
}

double YarnAttentionFactor(const RopeConfig& rope) {
  if (rope.attention_factor.has_value()) return *rope.attention_factor;
  if (rope.mscale != 0 && rope.mscale_all_dim != 0) {
    return YarnMagnitude(rope.factor, rope.mscale) /
           YarnMagnitude(rope.factor, rope.mscale_all_dim);
  }
  return YarnMagnitude(rope.factor, 1);
}

}  // namespace

RopeFrequencies ComputeRopeFrequencies(const RopeConfig& rope, int head_dim) {
  RopeFrequencies result;
  result.inv_freq = Waves(rope.theta, head_dim);
  for (float& value : result.inv_freq) value = 1 / value;
  switch (rope.kind) {
    case RopeKind::kDefault:
      break;
    case RopeKind::kLinear:
      for (float& frequency : result.inv_freq) frequency /= static_cast<float>(rope.factor);
      break;
    case RopeKind::kLlama3:
      ScaleLlama3(rope, &result.inv_freq);
      break;
    case RopeKind::kYarn:
      result.inv_freq = YarnFrequencies(rope, head_dim);
      result.attention_factor = static_cast<float>(YarnAttentionFactor(rope));
      break;
  }
  return result;
}

void RopeRow(const RopeFrequencies& frequencies, int position, float* cos, float* sin) {
  for (size_t i = 0; i < frequencies.inv_freq.size(); ++i) {
    const float angle = static_cast<float>(position) * frequencies.inv_freq[i];
    // The double functions round correctly enough to be the same everywhere.
    cos[i] =
        static_cast<float>(std::cos(static_cast<double>(angle))) * frequencies.attention_factor;
    sin[i] =
        static_cast<float>(std::sin(static_cast<double>(angle))) * frequencies.attention_factor;
  }
}

RopeTable::RopeTable(const RopeFrequencies& frequencies, int n_positions)
    : n_positions_(n_positions),
      half_(static_cast<int>(frequencies.inv_freq.size())),
      rows_(static_cast<size_t>(n_positions) * 2 * frequencies.inv_freq.size() * sizeof(float)) {
  GF_CHECK(n_positions >= 0);
  for (int position = 0; position < n_positions; ++position) {
    float* row = rows_.as<float>() + static_cast<size_t>(position) * 2 * half_;
    RopeRow(frequencies, position, row, row + half_);
  }
}

}  // namespace gatefold
