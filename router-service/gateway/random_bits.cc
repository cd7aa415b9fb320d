#include "router-service/gateway/random_bits.h"

#include <sys/random.h>

#include <cerrno>

#include "gatefold/base/check.h"

namespace gatefold {

uint64_t RandomBits() {
  uint64_t bits = 0;
  // Up to 256 bytes are neither cut short nor interrupted once the generator is seeded.
  ssize_t n;
  do {
    n = getrandom(&bits, sizeof(bits), 0);
  } while (n != sizeof(bits) && errno == EINTR);
  GF_CHECK(n == sizeof(bits));
  return bits;
}

uint64_t CandidateSeed(uint64_t request_seed, int candidate_index) {
  if (candidate_index == 0) return request_seed;
  // The splitmix64 finaliser: a bijection whose outputs for neighbouring inputs are unrelated.
  uint64_t z = request_seed + 0x9e3779b97f4a7c15u * static_cast<uint64_t>(candidate_index);
  z = (z ^ (z >> 30)) * 0xbf58476d1ce4e5b9u;
  z = (z ^ (z >> 27)) * 0x94d049bb133111ebu;
  return z ^ (z >> 31);
}

}  // namespace gatefold
