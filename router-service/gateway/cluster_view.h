#pragma once

#include <cstdint>
#include <string>
#include <vector>

#include "gatefold/cluster/v1/cluster.pb.h"

namespace gatefold {

// What the gateway and ClusterService see of the cluster. The router has one over its peers, the
// local deployment one over itself. Threads: safe; must answer from memory.
class ClusterView {
 public:
  virtual ~ClusterView() = default;

  // Model, readiness, coverage and all workers, in a stable order.
  virtual cluster::v1::GetClusterResponse Snapshot() const = 0;

  // Rows per (layer, expert) since the start, in ascending order.
  virtual std::vector<cluster::v1::ExpertLoad> ExpertLoads() const = 0;

  // Names by the shard indices that TraceChunk carries. An index may be another's one day, long
  // after its shard has gone.
  virtual std::vector<std::string> ShardNames() const = 0;

  // Counts up with every change of who serves what.
  virtual uint64_t topology_version() const = 0;

  // Shards of different numerics classes compute experts.
  virtual bool mixed_numerics() const = 0;
};

}  // namespace gatefold
