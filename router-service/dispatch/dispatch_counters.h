#pragma once

#include <array>
#include <atomic>
#include <cstdint>
#include <vector>

#include "gatefold/internal/v1/wire.pb.h"

namespace gatefold {

// What a router counted of its dispatch, over all lanes; by shard index where it is a vector.
// Threads: safe.
struct DispatchCounters {
  using Count = std::atomic<uint64_t>;
  DispatchCounters(size_t n_shards, size_t n_experts)
      : rows_served(n_shards),
        rows_sent(n_shards),
        messages(n_shards),
        bytes_sent(n_shards),
        bytes_received(n_shards),
        rows_of_expert(n_experts) {}

  std::vector<Count> rows_served;  // (row, expert) pairs answered and folded
  std::vector<Count> rows_sent;    // rows on the wire
  std::vector<Count> messages;     // calls
  std::vector<Count> bytes_sent, bytes_received;
  std::vector<Count> rows_of_expert;  // answered, [layer, expert]

  // Calls that were not answered and so sent again: by RefusalReason (0: the connection broke), and
  // those given up because no answer came.
  std::array<Count, internal::v1::RefusalReason_ARRAYSIZE> retries{};
  Count retries_silent{0};

  Count hedges_won{0}, hedges_lost{0};  // second calls that answered first, and those that did not

  // (row, expert) pairs computed a second time elsewhere, by what came of it.
  Count verified_equal{0}, verified_different{0};
  Count unverified_no_replica{0}, unverified_no_answer{0}, unverified_busy{0};

  Count rows_degraded{0};  // rows of a layer folded without all of their experts
  Count queue_rows{0};     // (row, expert) pairs sent and not yet answered
};

}  // namespace gatefold
