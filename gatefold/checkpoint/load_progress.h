#pragma once

#include <cstdint>
#include <cstdio>
#include <functional>
#include <string>

#include "absl/base/thread_annotations.h"
#include "absl/strings/string_view.h"
#include "absl/synchronization/mutex.h"
#include "absl/time/time.h"

namespace gatefold {

// How far a load has come, for whoever waits. On a terminal a bar that redraws itself; elsewhere a
// line every 5 s and one at the end. A load shorter than that prints its last line only.
//   LoadProgress progress({.label = "experts", .total_bytes = n});
//   progress.Add(bytes);   // from any thread, per tensor or so
//   progress.Finish();
// Threads: safe.
class LoadProgress {
 public:
  struct Options {
    std::string label;
    uint64_t total_bytes = 0;
    bool terminal = StderrIsTerminal();
    // Default: stderr, if the log's level is info or below, and the wall clock. Called with the
    // lock held: they must not call back.
    std::function<void(absl::string_view)> write;
    std::function<absl::Time()> now;
  };

  explicit LoadProgress(Options options);

  void Add(uint64_t bytes);
  void Finish();

  uint64_t done_bytes() const;
  uint64_t total_bytes() const { return options_.total_bytes; }

 private:
  static bool StderrIsTerminal();
  double Rate(absl::Time now) const ABSL_EXCLUSIVE_LOCKS_REQUIRED(mu_);
  // InfiniteDuration before the first byte.
  absl::Duration Left(absl::Time now) const ABSL_EXCLUSIVE_LOCKS_REQUIRED(mu_);
  std::string Line(absl::Time now) const ABSL_EXCLUSIVE_LOCKS_REQUIRED(mu_);

  Options options_;
  mutable absl::Mutex mu_;
  absl::Time started_ ABSL_GUARDED_BY(mu_);
  absl::Time printed_ ABSL_GUARDED_BY(mu_);
  uint64_t done_bytes_ ABSL_GUARDED_BY(mu_) = 0;
  bool finished_ ABSL_GUARDED_BY(mu_) = false;
};

}  // namespace gatefold
