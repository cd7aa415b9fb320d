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
  bool draining = false;  // answers, and may go: nothing more comes to it
  uint64_t capacity_bytes = 0;
  std::vector<uint32_t> announced = {};  // experts that it serves, ascending
  // It drains and will go for sure: it is told what of it is still needed. Else it keeps all, for
  // it may be taken back.
  bool ending = false;
};

// Turns a plan into what each shard is to be told now, so that every expert that is held somewhere
// stays held: make before break. An expert is taken from a shard only when everybody who is to hold
// it has been announcing it for `grace`: by then routers know.
// Full shards that are to exchange experts would wait for each other. So one of them gives up,
// before its time, an expert that others have: at once where it is to load one that nobody has, for
// which requests wait; else when nothing else goes on, one at a time. What nobody else has is never
// given up: where two full shards would have to exchange such experts, neither moves. And where one
// that nobody has cannot come to where it is planned, it comes to where there is room until it can.
class Assigner {
 public:
  Assigner(size_t n_items, uint64_t expert_bytes, absl::Duration grace)
      : expert_bytes_(expert_bytes),
        grace_(grace),
        complete_since_(n_items),
        served_since_(n_items) {}

  // By shard, ascending: what it is to hold now; nullopt: leave it alone. To be called again
  // whenever something changed, and every now and then. Shards are those of the plan, in its order.
  std::vector<std::optional<std::vector<uint32_t>>> Next(const std::vector<ShardView>& shards,
                                                         const Plan& plan, absl::Time now);

 private:
  // Since when every shard that is to hold the item has announced it, and since when any that
  // stays.
  void NoteComplete(const std::vector<ShardView>& shards, const Plan& plan, absl::Time now);
  void NoteServed(const std::vector<int>& n_holders, absl::Time now);
  // What a shard that ends serves and others have not, or not long enough.
  std::vector<uint32_t> StillNeeded(const ShardView& shard, absl::Time now) const;
  // What one shard is to hold: what it serves and must not be missed yet, and what fits beside it.
  struct Step {
    size_t slots = 0;
    std::vector<uint32_t> kept, coming;
    std::vector<uint32_t> waiting;  // to come, and there is no room
    bool goes_on = false;           // something comes, goes, or will go once grace is over
  };
  // `n_holders`: by item, shards that serve it and stay.
  Step StepOf(const ShardView& shard, const std::vector<uint32_t>& target,
              const std::vector<int>& n_holders, absl::Time now) const;
  // Has those that wait and that nobody serves come nevertheless, as far as it can. True: some do.
  static bool CoverWaiting(const Plan& plan, std::vector<int>* n_holders, std::vector<Step>* steps);
  // Gives up the kept item that most others have, for one that waits. False: there is none.
  static bool MakeRoomFor(uint32_t item, const std::vector<uint32_t>& target,
                          std::vector<int>* n_holders, Step* step);
  // Where there is room, or something comes that others have. False: nowhere.
  static bool Lodge(uint32_t item, const std::vector<int>& n_holders, std::vector<Step>* steps);

  const uint64_t expert_bytes_;
  const absl::Duration grace_;
  // By item; nullopt: it is not.
  std::vector<std::optional<absl::Time>> complete_since_, served_since_;
};

}  // namespace gatefold
