#include "router-service/planner/shard_speeds.h"

#include <algorithm>
#include <cmath>
#include <iterator>
#include <limits>

namespace gatefold {
namespace {

constexpr double kApart = 1.25;  // speeds in use are left alone within this
// What decides something. A kind that has too little to do has few seconds of computing to show.
constexpr double kLeastRows = 10'000, kLeastSeconds = 0.01;
constexpr absl::Duration kMostOfThePast = absl::Minutes(5);
// A first guess. Memory of devices is several times as fast as a host's, which decode waits for.
constexpr double kCpusOfADevice = 4;

// How much two kinds have in common.
int Likeness(const ShardKind& a, const ShardKind& b) {
  if (a.backend != b.backend) return 0;
  return a.device == b.device ? 2 : 1;
}

}  // namespace

bool ShardSpeeds::Measure::enough() const { return seconds >= kLeastSeconds && rows >= kLeastRows; }

void ShardSpeeds::Note(int shard, uint64_t incarnation, const ShardKind& kind, uint64_t n_rows,
                       absl::Duration busy) {
  Measure& measure = kinds_[kind];
  measure.noted = true;
  Seen& seen = seen_[shard];
  double share = 1;  // of what came since
  if (seen.incarnation != incarnation) {
    seen = {incarnation, 0, absl::ZeroDuration()};
    if (busy > kMostOfThePast) share = absl::FDivDuration(kMostOfThePast, busy);
  }
  // Two answers of a shard may overtake each other.
  if (n_rows < seen.n_rows || busy < seen.busy) return;
  measure.new_rows += share * static_cast<double>(n_rows - seen.n_rows);
  measure.new_seconds += share * absl::ToDoubleSeconds(busy - seen.busy);
  seen.n_rows = n_rows;
  seen.busy = busy;
}

bool ShardSpeeds::Advance(absl::Time now) {
  // By the clock, not by how busy each kind was: so all are compared over the same requests.
  const double keep = now > advanced_ && advanced_ != absl::InfinitePast()
                          ? std::exp2(-absl::FDivDuration(now - advanced_, half_life_))
                          : 1;
  advanced_ = now;
  double least = std::numeric_limits<double>::infinity(), most = 0, log_sum = 0;
  int n_measured = 0;
  for (auto& [kind, measure] : kinds_) {
    measure.rows = keep * measure.rows + measure.new_rows;
    measure.seconds = keep * measure.seconds + measure.new_seconds;
    measure.new_rows = measure.new_seconds = 0;
    if (!measure.enough()) continue;
    const double change = measure.rate() / Of(kind);
    least = std::min(least, change);
    most = std::max(most, change);
    log_sum += std::log(change);
    ++n_measured;
  }
  const bool changed = most > kApart * least && now >= changed_ + half_life_ / 2;
  if (changed) changed_ = now;
  // Those that have nothing to say now go along with the others.
  const double common = n_measured > 0 ? std::exp(log_sum / n_measured) : 1;
  for (auto it = kinds_.begin(); it != kinds_.end();) {
    Measure& measure = it->second;
    if (changed) measure.in_use = measure.enough() ? measure.rate() : measure.in_use * common;
    const bool forgotten = !measure.noted && measure.seconds < 1e-3;
    measure.noted = false;
    it = forgotten ? kinds_.erase(it) : std::next(it);
  }
  return changed;
}

double ShardSpeeds::Guess(const ShardKind& kind) const {
  if (kind.on_cpu()) return std::max(1u, kind.n_threads);
  uint32_t most = 1;
  for (const auto& [other, measure] : kinds_) most = std::max(most, other.n_threads);
  return kCpusOfADevice * most;
}

double ShardSpeeds::Of(const ShardKind& kind) const {
  const auto known = kinds_.find(kind);
  if (known != kinds_.end() && known->second.in_use > 0) return known->second.in_use;
  double scale = 1;
  int likest = -1;
  for (const auto& [other, measure] : kinds_) {
    const int likeness = Likeness(kind, other);
    if (measure.in_use == 0 || likeness < likest) continue;
    const double theirs = measure.in_use / Guess(other);
    scale = likeness > likest ? theirs : std::min(scale, theirs);
    likest = likeness;
  }
  return scale * Guess(kind);
}

std::vector<ShardSpeeds::Speed> ShardSpeeds::Measured() const {
  std::vector<Speed> speeds;
  for (const auto& [kind, measure] : kinds_) {
    if (measure.in_use > 0) speeds.push_back({kind, measure.in_use});
  }
  return speeds;
}

}  // namespace gatefold
