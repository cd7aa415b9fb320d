#pragma once

#include <array>
#include <cstddef>
#include <vector>

#include "absl/time/time.h"

namespace gatefold {

// How fast each shard answered one lane lately, and which of them lag: those are left alone where
// there is a replica, until they were in time in a trial that nobody waits for. Threads: the
// lane's.
class ShardPace {
 public:
  static constexpr int kWindow = 32;     // answers remembered, by shard and size of call
  static constexpr int kFewest = 4;      // fewer say nothing
  static constexpr int kSlowInARow = 4;  // slow answers, before a shard lags for them
  static constexpr absl::Duration kFirstPenalty = absl::Milliseconds(100);
  static constexpr absl::Duration kLongestPenalty = absl::Seconds(5);

  // `quantile` of its recent latencies is what a shard usually takes.
  ShardPace(int n_shards, double quantile) : quantile_(quantile), shards_(n_shards) {}

  // A call that was answered, however late.
  void Answered(int shard, size_t n_rows, absl::Duration took);

  // For calls of about that many rows; InfiniteDuration: nothing is known of it yet.
  absl::Duration Usual(int shard, size_t n_rows) const;

  // It let a call wait too long, or failed: it lags, and its next trial is later each time.
  void Strike(int shard, absl::Time now);
  // It answered, but others would have been much quicker: some in a row are a strike. True for the
  // one that makes it lag.
  bool Slow(int shard, absl::Time now);
  // It answered about as quickly as others would have: it does not lag any more.
  void InTime(int shard);
  // Calls that nobody waits for and that it has not answered yet: it lags as long as there are any.
  void AddOwed(int shard, int n) {
    shards_[shard].n_owed += n;
    if (shards_[shard].n_owed == 0) shards_[shard].silent = false;
  }
  // If it owes answers, rows had to be left without one of them: nothing more is sent to it until it
  // has answered, or those calls have failed.
  void SetSilent(int shard) { shards_[shard].silent = shards_[shard].n_owed > 0; }
  bool Silent(int shard) const { return shards_[shard].silent; }
  // 0: it does not lag. Of several that do, the one with the least is the one to take; one that
  // owes answers has kOwes, a silent one more.
  static constexpr int kOwes = 1 << 20;
  int Lag(int shard) const {
    const Shard& asked = shards_[shard];
    return asked.n_owed > 0 ? kOwes + asked.silent : asked.n_strikes;
  }
  // It lags, owes nothing, and has been left alone long enough.
  bool TrialDue(int shard, absl::Time now) const {
    const Shard& asked = shards_[shard];
    return asked.n_strikes > 0 && asked.n_owed == 0 && now >= asked.trial_at;
  }
  bool AnyStruck() const { return n_struck_ > 0; }

  // Another shard has its index now.
  void Forget(int shard) {
    n_struck_ -= shards_[shard].n_strikes > 0;
    shards_[shard] = Shard();
  }

 private:
  // The latest latencies of calls of one size, and their quantile.
  struct Window {
    std::array<float, kWindow> seconds;
    int n = 0;     // in use
    int next = 0;  // oldest, once all are in use
    float usual_seconds = 0;
  };
  struct Shard {
    std::vector<Window> by_size;  // index: bits of the number of rows
    int n_strikes = 0;            // since it was in time
    int n_slow = 0;               // slow answers in a row
    int n_owed = 0;
    bool silent = false;
    absl::Time trial_at = absl::InfinitePast();
  };

  const double quantile_;
  std::vector<Shard> shards_;
  int n_struck_ = 0;  // of them
};

}  // namespace gatefold
