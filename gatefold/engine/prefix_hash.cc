#include "gatefold/engine/prefix_hash.h"

namespace gatefold {
namespace {

// The finaliser of SplitMix64 (Steele et al., 2014): every bit of the input moves half of the
// output's.
uint64_t Mix(uint64_t x) {
  x += 0x9E3779B97F4A7C15;
  x = (x ^ (x >> 30)) * 0xBF58476D1CE4E5B9;
  x = (x ^ (x >> 27)) * 0x94D049BB133111EB;
  return x ^ (x >> 31);
}

}  // namespace

uint64_t PrefixHash(uint64_t parent, absl::Span<const int32_t> block_tokens) {
  uint64_t hash = Mix(parent);
  for (int32_t token : block_tokens) hash = Mix(hash ^ static_cast<uint32_t>(token));
  return hash;
}

}  // namespace gatefold
