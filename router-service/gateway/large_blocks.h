#pragma once

#include <atomic>

namespace gatefold {

// For tests, in whose program it replaces operator new: how many blocks of kLargeBlockBytes and
// more were taken, so that a copy of something large shows.
inline constexpr int kLargeBlockBytes = 1'500'000;
extern std::atomic<int> n_large_blocks;

}  // namespace gatefold
