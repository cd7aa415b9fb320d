#pragma once

#include <cstdint>
#include <vector>

#include "absl/types/span.h"
#include "router-service/dispatch/prefix_affinity.h"

namespace gatefold {

// An attention-service as a place for a new sequence.
struct AttentionPlace {
  int index = 0;  // in the routing table
  uint64_t incarnation = 0;
  int64_t n_free_blocks = 0;    // KV blocks it can give
  int max_sequence_tokens = 0;  // positions one sequence may have there; 0: it did not say
};

// Indices of the places that can hold `n_positions`, best first: the one that computed the longest
// beginning of the prompt (`names`: of its blocks) before the others, those in the order of their
// free blocks. But a prefix that many prompts have would draw all of them to one service: it is no
// longer preferred once another has more than twice as many free blocks.
std::vector<int> OrderPlaces(std::vector<AttentionPlace> places, int n_positions,
                             absl::Span<const uint64_t> names, PrefixAffinity* affinity);

}  // namespace gatefold
