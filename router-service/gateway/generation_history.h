#pragma once

#include <cstdint>
#include <deque>
#include <optional>
#include <string>

#include "absl/base/thread_annotations.h"
#include "absl/strings/string_view.h"
#include "absl/synchronization/mutex.h"
#include "gatefold/cluster/v1/cluster.pb.h"

namespace gatefold {

// How the last generations went, so that one can be looked at after it ended. Of no use to who has
// no request id; holds no text. Bounded: the oldest go first. Threads: safe.
class GenerationHistory {
 public:
  using Trace = cluster::v1::GenerationTrace;

  // `max_bytes`: of all traces together, as they are on the wire.
  GenerationHistory(int max_generations, int64_t max_bytes)
      : max_generations_(max_generations), max_bytes_(max_bytes) {}

  void Add(const Trace& trace);

  // The last one of this id; `caller`: only of this caller. nullopt: none is kept.
  std::optional<Trace> Find(absl::string_view request_id,
                            const std::optional<std::string>& caller) const;

 private:
  // On the wire a trace takes a fifth of the memory.
  struct Kept {
    std::string request_id, caller, wire;
  };

  const int max_generations_;
  const int64_t max_bytes_;
  mutable absl::Mutex mu_;
  std::deque<Kept> kept_ ABSL_GUARDED_BY(mu_);  // oldest first
  int64_t bytes_ ABSL_GUARDED_BY(mu_) = 0;
};

}  // namespace gatefold
