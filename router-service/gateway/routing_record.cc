#include "router-service/gateway/routing_record.h"

#include <limits>
#include <utility>

#include "router-service/gateway/routing_trace.h"

namespace gatefold {
namespace {

// What AppendTrace adds for each (token, layer, k): an id, a weight and a shard.
constexpr int64_t kBytesPerEntry = 2 + 4 + 1;

}  // namespace

void RoutingRecord::Add(int candidate, const TraceChunk& chunk, int n_prompt, int first_output,
                        const std::vector<std::string>& shard_names) {
  if (dropped_) return;
  bytes_ += static_cast<int64_t>(chunk.experts.size()) * kBytesPerEntry;
  if (static_cast<size_t>(candidate) >= candidates_.size()) candidates_.resize(candidate + 1);
  const bool kept = bytes_ <= max_bytes_ &&
                    (candidate != 0 || AppendTrace(chunk, 0, n_prompt, shard_names, &prompt_)) &&
                    AppendTrace(chunk, first_output, std::numeric_limits<int>::max(), shard_names,
                                &candidates_[candidate]);
  if (kept) return;
  dropped_ = true;
  prompt_.Clear();
  candidates_.clear();
}

void RoutingRecord::MoveTo(cluster::v1::GenerationTrace* trace) {
  trace->set_routing_dropped(dropped_);
  if (prompt_.n_tokens() > 0) *trace->mutable_prompt_routing() = std::exchange(prompt_, {});
  for (size_t i = 0; i < candidates_.size(); ++i) {
    if (candidates_[i].n_tokens() == 0) continue;
    *trace->mutable_candidates(static_cast<int>(i))->mutable_routing() = std::move(candidates_[i]);
  }
  candidates_.clear();
}

}  // namespace gatefold
