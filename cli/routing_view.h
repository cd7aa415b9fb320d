#pragma once

#include <cstdint>
#include <map>
#include <string>
#include <utility>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "gatefold/inference/v1/inference.pb.h"

namespace gatefold::cli {

// Reads a routing trace, whose arrays are packed and came over the network.
// The trace outlives the view.
class RoutingView {
 public:
  // InvalidArgument if the arrays' sizes do not fit the counts, or a shard has no name.
  static absl::StatusOr<RoutingView> Create(const inference::v1::RoutingTrace& trace);

  size_t n_tokens() const { return trace_->n_tokens(); }
  size_t n_layers() const { return static_cast<size_t>(trace_->layer_ids_size()); }
  size_t top_k() const { return trace_->top_k(); }
  uint32_t layer_id(size_t layer) const { return trace_->layer_ids(static_cast<int>(layer)); }

  // layer: index into the trace's layers; k: 0 is the heaviest.
  int expert(size_t token, size_t layer, size_t k) const;
  float weight(size_t token, size_t layer, size_t k) const;
  const std::string& shard(size_t token, size_t layer, size_t k) const;

 private:
  explicit RoutingView(const inference::v1::RoutingTrace& trace) : trace_(&trace) {}
  size_t At(size_t token, size_t layer, size_t k) const {
    return (token * n_layers() + layer) * top_k() + k;
  }

  const inference::v1::RoutingTrace* trace_;
};

// How many (row, expert) pairs each shard and each expert answered.
struct RoutingShares {
  uint64_t total = 0;
  std::map<std::string, uint64_t> by_shard;
  std::map<std::pair<uint32_t, int>, uint64_t> by_expert;  // (layer, expert)

  absl::Status Add(const inference::v1::RoutingTrace& trace);
  // Percent of all pairs; of an expert: of its layer's.
  double ShardShare(const std::string& shard) const;
  double ExpertShare(uint32_t layer, int expert) const;

 private:
  std::map<uint32_t, uint64_t> by_layer_;
};

}  // namespace gatefold::cli
