#pragma once

#include "gatefold/cluster/v1/cluster.pb.h"

namespace gatefold {

// What callers get, as ClusterService tells it. Threads: safe; must answer from memory.
class ServingStats {
 public:
  virtual ~ServingStats() = default;
  virtual cluster::v1::GetServingStatsResponse Stats() const = 0;
};

}  // namespace gatefold
