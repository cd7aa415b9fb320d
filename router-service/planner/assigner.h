#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <vector>

#include "absl/time/time.h"
#include "router-service/planner/planner.h"

namespace gatefold {

// What a shard says of itself, for one step towards a plan.
struct ShardView {
  bool ready = false;     // answers calls
  bool draining = false;  // answers, and will go: it is told nothing more
  uint64_t capacity_bytes = 0;
  std::vector<uint32_t> announced;  // experts that it serves, ascending
};

// Turns a plan into what each shard is to be told now, so that every expert that is held somewhere
// stays held: make before break. An expert is taken from a shard only when everybody who is to hold
// it has been announcing it for `grace`: by then routers know.
// Where two full shards would have to exchange experts that nobody else has, neither moves.
class Assigner {
 public:
  Assigner(size_t n_items, uint64_t expert_bytes, absl::Duration grace)
      : expert_bytes_(expert_bytes), grace_(grace), complete_since_(n_items) {}

  // By shard, ascending: what it is to hold now; nullopt: leave it alone. To be called again
  // whenever something changed, and every now and then. Shards are those of the plan, in its order.
  std::vector<std::optional<std::vector<uint32_t>>> Next(const std::vector<ShardView>& shards,
                                                         const Plan& plan, absl::Time now);

 private:
  // Since when every shard that is to hold the item has announced it.
  void NoteComplete(const std::vector<ShardView>& shards, const Plan& plan, absl::Time now);

  const uint64_t expert_bytes_;
  const absl::Duration grace_;
  std::vector<std::optional<absl::Time>> complete_since_;  // by item; nullopt: it is not
};

}  // namespace gatefold
