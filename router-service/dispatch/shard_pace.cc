#include "router-service/dispatch/shard_pace.h"

#include <algorithm>
#include <bit>

namespace gatefold {

void ShardPace::Answered(int shard, size_t n_rows, absl::Duration took) {
  std::vector<Window>& by_size = shards_[shard].by_size;
  const size_t size = std::bit_width(n_rows);
  if (by_size.size() <= size) by_size.resize(size + 1);
  Window& window = by_size[size];
  window.seconds[window.next] = static_cast<float>(absl::ToDoubleSeconds(took));
  window.next = (window.next + 1) % kWindow;
  window.n = std::min(window.n + 1, kWindow);
  // A few microseconds of sorting, every eighth answer once there are enough.
  if (window.n < kFewest || (window.n == kWindow && window.next % 8 != 0)) return;
  std::array<float, kWindow> sorted = window.seconds;
  const int rank = std::min(window.n - 1, static_cast<int>(quantile_ * window.n));
  std::nth_element(sorted.begin(), sorted.begin() + rank, sorted.begin() + window.n);
  window.usual_seconds = sorted[rank];
}

absl::Duration ShardPace::Usual(int shard, size_t n_rows) const {
  const std::vector<Window>& by_size = shards_[shard].by_size;
  const auto known = [&](size_t size) { return by_size[size].n >= kFewest; };
  const size_t size = std::bit_width(n_rows);
  // Of a size that is rare: no more than a larger call takes, or than a smaller one in proportion.
  for (size_t larger = size; larger < by_size.size(); ++larger) {
    if (known(larger)) return absl::Seconds(by_size[larger].usual_seconds);
  }
  for (size_t smaller = std::min(size, by_size.size()); smaller-- > 0;) {
    if (!known(smaller)) continue;
    const size_t times = size_t{1} << std::min<size_t>(size - smaller, 20);
    return absl::Seconds(by_size[smaller].usual_seconds) * static_cast<double>(times);
  }
  return absl::InfiniteDuration();
}

void ShardPace::Strike(int shard, absl::Time now) {
  Shard& struck = shards_[shard];
  if (now < struck.trial_at) return;  // known
  absl::Duration penalty = kFirstPenalty * (1 << std::min(struck.n_strikes, 10));
  struck.trial_at = now + std::min(penalty, kLongestPenalty);
  struck.n_slow = 0;
  n_struck_ += struck.n_strikes++ == 0;
}

bool ShardPace::Slow(int shard, absl::Time now) {
  if (++shards_[shard].n_slow < kSlowInARow) return false;
  Strike(shard, now);
  return shards_[shard].n_strikes == 1;
}

void ShardPace::InTime(int shard) {
  Shard& quick = shards_[shard];
  quick.n_slow = 0;
  if (quick.n_strikes == 0) return;
  quick.n_strikes = 0;
  --n_struck_;
  quick.trial_at = absl::InfinitePast();
  quick.by_size.clear();  // how slow it was says nothing any more
}

}  // namespace gatefold
