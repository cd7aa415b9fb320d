#pragma once

#include <algorithm>
#include <cstdint>
#include <vector>

namespace gatefold {

// An item is an expert of the whole model, layer * n_experts + expert, as a planner counts them.
inline bool Contains(const std::vector<uint32_t>& ascending, uint32_t item) {
  return std::binary_search(ascending.begin(), ascending.end(), item);
}

}  // namespace gatefold
