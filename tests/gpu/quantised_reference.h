#pragma once

// What quantised weights stand for, computed on the host.

#include <algorithm>
#include <cstdint>
#include <vector>

#include "gatefold/cuda/tiles.h"
#include "gatefold/tensor/quantise.h"
#include "tests/gpu/bf16.h"

namespace gatefold::cuda {

static_assert(kQuantGroup == gatefold::kQuantGroup);

// bfloat16 weights [n_out, n_in] quantised and back; as they are for kBF16.
inline std::vector<uint16_t> Dequantised(WeightFormat format, const std::vector<uint16_t>& weights,
                                         int64_t n_in) {
  if (format == WeightFormat::kBF16) return weights;
  std::vector<uint16_t> back(weights.size());
  for (int64_t row = 0; row < static_cast<int64_t>(weights.size()); row += n_in) {
    for (int64_t first = 0; first < n_in; first += kQuantGroup) {
      const int64_t n = std::min<int64_t>(kQuantGroup, n_in - first);
      float x[kQuantGroup] = {};
      for (int64_t i = 0; i < n; ++i) x[i] = FromBF16(weights[row + first + i]);
      const QuantisedGroup group = format == WeightFormat::kInt8 ? Quantise<8>(x) : Quantise<4>(x);
      for (int64_t i = 0; i < n; ++i) {
        back[row + first + i] = ToBF16(group.q[i] * FromBF16(group.scale));
      }
    }
  }
  return back;
}

inline const char* FormatName(WeightFormat format) {
  return format == WeightFormat::kBF16 ? "BF16" : format == WeightFormat::kInt8 ? "Int8" : "Int4";
}

}  // namespace gatefold::cuda
