#pragma once

#include <cstdint>

#include "absl/time/time.h"

namespace gatefold {

// A limit per minute: holds a minute's worth, starts full, fills evenly. Threads: one at a time.
class TokenBucket {
 public:
  // per_minute >= 1.
  TokenBucket(int64_t per_minute, absl::Time now);

  // Takes `n` and returns zero, or takes nothing and returns how long it will be until it could.
  // More than the bucket holds is let through when it is full, or it would never be; the bucket
  // then owes the rest, and nobody gets anything until that is paid.
  absl::Duration Take(int64_t n, absl::Time now);

  // Of what was taken, so much was not needed.
  void GiveBack(int64_t n);

  int64_t per_minute() const { return per_minute_; }

 private:
  void Fill(absl::Time now);

  const int64_t per_minute_;
  double level_;
  absl::Time filled_;
};

}  // namespace gatefold
