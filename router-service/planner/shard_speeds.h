#pragma once

#include <compare>
#include <cstdint>
#include <map>
#include <string>
#include <vector>

#include "absl/time/time.h"

namespace gatefold {

// What a shard computes with. Shards of one kind count as equally fast.
struct ShardKind {
  std::string backend;     // "cpu" or "cuda"
  std::string device;      // instruction set or device, and the format of weights
  uint32_t n_threads = 0;  // of a CPU; a device's own threads say nothing of its speed: 0
  friend auto operator<=>(const ShardKind&, const ShardKind&) = default;

  bool on_cpu() const { return backend == "cpu"; }
};

// How fast shards are against each other: rows per second of computing, from counters of theirs
// that only go up, as a moving average whose weight halves every half_life.
//
// It is measured by kind, not by shard. Rows per second depend on how many rows come to an expert
// at a time, since its weights are read once for all of them. So a shard with hot experts looks
// faster than its twin, and would look slower again once it had got cold ones for it: experts are
// gigabytes, and would go back and forth. Over a kind that evens out. A new shard is as fast as
// its kind from the first moment on, one that idles stays as fast as it was, and where all are of
// one kind nothing depends on a measurement. (A pod on a slow machine among its twins is not told
// from them; routers leave it to its replicas.)
//
// What is left of the dependence leads to the right end. A kind that is given more computes more
// rows at a time and looks faster, until all take equally long; and each step there is smaller
// than the one before, since time grows with rows, too.
//
// Speeds in use change all together and only when one against another differs by more than a
// quarter from what is in use: what changes all alike, such as longer prompts, moves nothing. Then
// they stay for half of half_life at least: what moves has to be loaded, and loading slows shards.
class ShardSpeeds {
 public:
  explicit ShardSpeeds(absl::Duration half_life) : half_life_(half_life) {}

  // What one shard has computed since its start; `incarnation` tells a restarted one from the one
  // before. What it counted before it was first seen counts, too, up to five minutes of computing:
  // so a planner that was started again rates shards as the one before did.
  void Note(int shard, uint64_t incarnation, const ShardKind& kind, uint64_t n_rows,
            absl::Duration busy);
  // Takes in what was noted since the last time. True: speeds changed.
  bool Advance(absl::Time now);

  // Positive, and meaningful against each other only. A kind of which nothing is known counts by
  // its threads: as the slowest like it that is measured, for each thread. Before anything is
  // measured a device counts as much as four CPUs with the most threads that there are.
  double Of(const ShardKind& kind) const;

  struct Speed {
    ShardKind kind;
    double rows_per_second;
  };
  // Those in use that were measured.
  std::vector<Speed> Measured() const;

 private:
  struct Seen {
    uint64_t incarnation = 0;
    uint64_t n_rows = 0;
    absl::Duration busy;
  };
  struct Measure {
    double rows = 0, seconds = 0;          // the moving sums
    double new_rows = 0, new_seconds = 0;  // since the last Advance
    bool noted = false;                    // since the last Advance
    double in_use = 0;                     // 0: it was never measured
    bool enough() const;
    double rate() const { return rows / seconds; }
  };
  // A guess, against other guesses.
  double Guess(const ShardKind& kind) const;

  const absl::Duration half_life_;
  std::map<int, Seen> seen_;  // by shard
  std::map<ShardKind, Measure> kinds_;
  absl::Time advanced_ = absl::InfinitePast();
  absl::Time changed_ = absl::InfinitePast();  // when speeds in use did
};

}  // namespace gatefold
