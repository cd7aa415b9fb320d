#pragma once

#include <cstdint>

namespace gatefold {

// From the kernel's generator: for request ids, which must not be guessed, and for seeds.
uint64_t RandomBits();

// The seed of one candidate of a request. Candidate 0 draws with the request's own seed, so that
// asking for more candidates leaves the first as it was; the others' follow from it.
uint64_t CandidateSeed(uint64_t request_seed, int candidate_index);

}  // namespace gatefold
