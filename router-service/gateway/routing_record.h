#pragma once

#include <cstdint>
#include <string>
#include <vector>

#include "gatefold/cluster/v1/cluster.pb.h"
#include "router-service/scheduler/generation.h"

namespace gatefold {

// All routes of one generation, kept until it ends, for its trace. Past `max_bytes` it forgets them
// and takes no more: requests live long, and there are many. Threads: one at a time.
class RoutingRecord {
 public:
  explicit RoutingRecord(int64_t max_bytes) : max_bytes_(max_bytes) {}

  // `n_prompt`: positions of the prompt, whose routes are kept of candidate 0 only. Those from
  // `first_output` on lead to output tokens.
  void Add(int candidate, const TraceChunk& chunk, int n_prompt, int first_output,
           const std::vector<std::string>& shard_names);

  // Leaves nothing behind. `trace` has its candidates already.
  void MoveTo(cluster::v1::GenerationTrace* trace);

 private:
  const int64_t max_bytes_;
  int64_t bytes_ = 0;
  bool dropped_ = false;
  inference::v1::RoutingTrace prompt_;
  std::vector<inference::v1::RoutingTrace> candidates_;
};

}  // namespace gatefold
