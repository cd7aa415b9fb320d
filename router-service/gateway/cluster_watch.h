#pragma once

#include <cstddef>
#include <memory>
#include <thread>
#include <vector>

#include "absl/base/thread_annotations.h"
#include "absl/synchronization/mutex.h"
#include "absl/time/time.h"
#include "gatefold/cluster/v1/cluster.pb.h"
#include "gatefold/rpc/async_service.h"
#include "router-service/gateway/cluster_view.h"

namespace gatefold {

// Tells those who watch a cluster what it is now, whenever that changes. Looks at the view every
// `tick` while somebody watches; owns a thread for it. Threads: safe.
class ClusterWatch {
 public:
  using TopologyStream = ServerStream<cluster::v1::WatchTopologyResponse>;
  using LoadStream = ServerStream<cluster::v1::WatchExpertLoadResponse>;

  // The view outlives this.
  explicit ClusterWatch(const ClusterView* view, absl::Duration tick = absl::Milliseconds(100));
  // Lets go of all streams.
  ~ClusterWatch();

  void AddTopology(std::shared_ptr<CallContext> call, std::shared_ptr<TopologyStream> stream);
  void AddLoad(std::shared_ptr<CallContext> call, std::shared_ptr<LoadStream> stream,
               absl::Duration interval);

  size_t n_watchers() const;

 private:
  struct TopologyWatcher {
    std::shared_ptr<CallContext> call;
    std::shared_ptr<TopologyStream> stream;
    bool told = false;
    uint64_t version = 0;  // that it was told
  };
  struct LoadWatcher {
    std::shared_ptr<CallContext> call;
    std::shared_ptr<LoadStream> stream;
    absl::Duration interval;
    absl::Time due;
  };
  struct Watchers {
    std::vector<TopologyWatcher> topology;
    std::vector<LoadWatcher> load;
    bool empty() const { return size() == 0; }
    size_t size() const { return topology.size() + load.size(); }
  };

  void Run();
  void TellTopology(std::vector<TopologyWatcher>* watchers) const;
  void TellLoad(std::vector<LoadWatcher>* watchers, absl::Time now) const;

  const ClusterView* const view_;
  const absl::Duration tick_;
  mutable absl::Mutex mu_;
  size_t n_watchers_ ABSL_GUARDED_BY(mu_) = 0;  // that the thread has
  Watchers added_ ABSL_GUARDED_BY(mu_);         // not yet taken by the thread
  bool stopping_ ABSL_GUARDED_BY(mu_) = false;
  std::thread thread_;
};

}  // namespace gatefold
