#pragma once

#include <deque>
#include <functional>
#include <string>
#include <thread>

#include "absl/base/thread_annotations.h"
#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/synchronization/mutex.h"
#include "absl/time/time.h"
#include "gatefold/rpc/channel.h"
#include "router-service/directory_view.h"
#include "router-service/dispatch/directory.h"
#include "router-service/gateway/cluster_admin.h"
#include "router-service/planner/cluster_planner.h"

namespace gatefold {

// An operator's hand: tells workers to drain, and the planner to plan. One thing after another, on
// a thread of its own. That a worker drains is the worker's own state, so that every router and
// planner sees it, and this router keeps nothing.
class ClusterControl final : public ClusterAdmin {
 public:
  struct Options {
    ChannelOptions channels;
    absl::Duration answer_timeout = absl::Seconds(5);
  };

  // What is pointed to outlives this; `planner` may be null.
  ClusterControl(const Options& options, Directory* directory, const DirectoryView* view,
                 ClusterPlanner* planner);
  // What waits is refused.
  ~ClusterControl() override;

  void SetDraining(const std::string& worker, bool draining,
                   std::function<void(absl::StatusOr<cluster::v1::Worker>)> done) override;
  void FlushKvCache(
      const std::string& worker,
      std::function<void(absl::StatusOr<cluster::v1::FlushKvCacheResponse>)> done) override;
  void Rebalance(
      std::function<void(absl::StatusOr<cluster::v1::RebalanceExpertsResponse>)> done) override;

 private:
  // Where a worker is in the routing table.
  struct Place {
    bool expert = false;
    int index = 0;
    std::string address;
  };

  // `run` gets an error if it is refused, and else OK on the thread.
  void Enqueue(std::function<void(absl::Status)> run);
  void Run();
  absl::StatusOr<Place> Find(const std::string& worker) const;
  absl::StatusOr<cluster::v1::Worker> SetDrainingNow(const std::string& worker, bool draining);
  absl::StatusOr<cluster::v1::FlushKvCacheResponse> FlushKvCacheNow(const std::string& worker);
  // One call to a worker. `response`: null if it is of no interest.
  absl::Status Call(const std::string& address, const char* method,
                    const google::protobuf::MessageLite& request,
                    google::protobuf::MessageLite* response) const;

  const Options options_;
  Directory* const directory_;
  const DirectoryView* const view_;
  ClusterPlanner* const planner_;

  absl::Mutex mu_;
  std::deque<std::function<void(absl::Status)>> waiting_ ABSL_GUARDED_BY(mu_);
  bool stopping_ ABSL_GUARDED_BY(mu_) = false;
  std::thread thread_;
};

}  // namespace gatefold
