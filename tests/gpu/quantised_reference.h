#pragma once

// What quantised weights stand for, computed on the host.

#include <algorithm>
#include <cmath>
#include <cstdint>
#include <vector>

#include "gatefold/cuda/tiles.h"
#include "tests/gpu/bf16.h"

namespace gatefold::cuda {

// bfloat16 weights [n_out, n_in] quantised and back; as they are for kBF16.
inline std::vector<uint16_t> Dequantised(WeightFormat format, const std::vector<uint16_t>& weights,
                                         int64_t n_in) {
  if (format == WeightFormat::kBF16) return weights;
  const bool int8 = format == WeightFormat::kInt8;
  std::vector<uint16_t> back(weights.size());
  for (int64_t row = 0; row < static_cast<int64_t>(weights.size()); row += n_in) {
    for (int64_t first = 0; first < n_in; first += kQuantGroup) {
      const int64_t n = std::min<int64_t>(kQuantGroup, n_in - first);
      const uint16_t* from = &weights[row + first];
      float extreme = 0;
      for (int64_t i = 0; i < n; ++i) {
        if (std::fabs(FromBF16(from[i])) > std::fabs(extreme)) extreme = FromBF16(from[i]);
      }
      const float d = FromBF16(ToBF16(int8 ? std::fabs(extreme) / 127.0f : extreme / -8.0f));
      for (int64_t i = 0; i < n; ++i) {
        const float q = d == 0 ? 0 : std::nearbyint(FromBF16(from[i]) / d);
        back[row + first + i] = ToBF16(d * (int8 ? std::clamp(q, -127.0f, 127.0f) : std::clamp(q, -8.0f, 7.0f)));
      }
    }
  }
  return back;
}

inline const char* FormatName(WeightFormat format) {
  return format == WeightFormat::kBF16 ? "BF16" : format == WeightFormat::kInt8 ? "Int8" : "Int4";
}

}  // namespace gatefold::cuda
