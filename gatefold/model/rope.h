#pragma once

#include <vector>

#include "gatefold/model/model_config.h"
#include "gatefold/tensor/buffer.h"

namespace gatefold {

// A position p turns pair i of a head by the angle p * inv_freq[i]; cosines and sines are scaled
// by attention_factor (1 except for yarn), for queries and keys both.
struct RopeFrequencies {
  std::vector<float> inv_freq;  // [head_dim / 2]
  float attention_factor = 1;
};

RopeFrequencies ComputeRopeFrequencies(const RopeConfig& rope, int head_dim);

// cos, sin: [head_dim / 2], out. The angle is rounded to float32 before the cosine, as the
// reference does: past some thousand positions that rounding is visible.
void RopeRow(const RopeFrequencies& frequencies, int position, float* cos, float* sin);

// Cosines and sines of positions [0, n_positions): 4 * head_dim bytes each. Threads: safe.
class RopeTable {
 public:
  RopeTable(const RopeFrequencies& frequencies, int n_positions);

  int n_positions() const { return n_positions_; }
  const float* cos(int position) const { return Row(position); }          // [head_dim / 2]
  const float* sin(int position) const { return Row(position) + half_; }  // [head_dim / 2]

 private:
  const float* Row(int position) const {
    return rows_.as<float>() + static_cast<size_t>(position) * 2 * half_;
  }
  int n_positions_ = 0;
  int half_ = 0;
  Buffer rows_;  // [n_positions, 2, head_dim / 2]
};

}  // namespace gatefold
