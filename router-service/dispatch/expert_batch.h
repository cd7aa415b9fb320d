#pragma once

#include <cstdint>
#include <memory>
#include <set>
#include <utility>
#include <vector>

#include "absl/status/status.h"
#include "absl/time/time.h"
#include "gatefold/engine/expert_client.h"
#include "gatefold/engine/step.h"
#include "router-service/dispatch/expert_call.h"
#include "router-service/dispatch/routing_table.h"
#include "router-service/dispatch/shard_pace.h"

namespace gatefold {

// The rows of one step in one layer on their way to the shards and back. A *slot* is one (row,
// expert) pair, an entry of the routes. Threads: the lane's.
struct ExpertBatch {
  using Slots = std::vector<size_t>;

  ExpertBatch(const Step& step, int layer, const float* h, const Routes& routes, float* answers,
              uint8_t* served_by);

  const Step& step;
  const int layer;
  const float* const h;  // [n_rows, d_model]
  const Routes& routes;
  float* const answers;                       // [slots, d_model]
  uint8_t* const served_by;                   // [slots]; kNoShard: not answered
  size_t n_open;                              // slots that are not answered
  Slots unsent;                               // of them, those that no call under way answers
  std::vector<uint8_t> n_carriers;            // by slot: calls under way that would answer it
  std::vector<bool> dropped;                  // by slot: its row goes on without it; empty: none
  std::vector<int> n_dropped;                 // by row: such slots; empty: none
  uint64_t n_degraded = 0;                    // rows with some of those
  std::vector<bool> avoid;                    // by shard: failed in this batch
  std::set<std::pair<size_t, int>> late;      // (slot, shard) of all calls that were late
  std::vector<int> silent;                    // shards whose answers rows are left without
  std::vector<uint64_t> tokens;               // of all calls of this batch
  absl::Status failure;                       // of the last call that failed
  absl::Status fatal;                         // not to be tried again
  int n_rounds = 0;                           // of sending what is unsent
  int n_attempts = 0;                         // keys given out: rounds, hedges and verifications
  std::shared_ptr<const RoutingTable> table;  // the latest
  absl::Time now;                             // when `table` was looked at
  absl::Time next_look;                       // for calls that are late

  int row(size_t slot) const { return static_cast<int>(slot / routes.top_k); }
  int expert(size_t slot) const { return routes.experts[slot]; }
  // Or dropped: no answer is wanted any more.
  bool answered(size_t slot) const {
    return served_by[slot] != kNoShard || (!dropped.empty() && dropped[slot]);
  }

  // Shards that hold the slot's expert.
  const std::vector<int>& Holders(size_t slot) const;

  // The shard that is to compute a slot next, another than `not_this`; -1: there is none. For want
  // of a better one a shard that lags is taken, but for a silent one, to hedge only if it owes
  // nothing and is not late with this very slot, and one that has failed only to answer. For a
  // trial: one whose trial is due.
  int Choose(size_t slot, const ShardPace& pace, ExpertCall::Purpose purpose, int not_this) const;

  // One call per shard for `slots`; those for which there is no shard go to `left_over`.
  std::vector<ExpertCall> Plan(Slots slots, const ShardPace& pace, ExpertCall::Purpose purpose,
                               int not_this, Slots* left_over);
};

}  // namespace gatefold
