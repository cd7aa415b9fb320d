#pragma once

#include <functional>
#include <string>

#include "absl/status/statusor.h"
#include "gatefold/cluster/v1/cluster.pb.h"

namespace gatefold {

// What AdminService can do to a cluster. Calls return at once; `done` comes later, from another
// thread, once. Threads: safe.
class ClusterAdmin {
 public:
  virtual ~ClusterAdmin() = default;

  // `worker`: name or address. Errors as in cluster.proto.
  virtual void SetDraining(const std::string& worker, bool draining,
                           std::function<void(absl::StatusOr<cluster::v1::Worker>)> done) = 0;

  // `worker`: name or address of an attention-service; empty: all of them.
  virtual void FlushKvCache(
      const std::string& worker,
      std::function<void(absl::StatusOr<cluster::v1::FlushKvCacheResponse>)> done) = 0;

  virtual void Rebalance(
      std::function<void(absl::StatusOr<cluster::v1::RebalanceExpertsResponse>)> done) = 0;
};

}  // namespace gatefold
