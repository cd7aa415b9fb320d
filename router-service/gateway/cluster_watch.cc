#include "router-service/gateway/cluster_watch.h"

#include <algorithm>
#include <utility>

#include "absl/time/clock.h"

namespace gatefold {

ClusterWatch::ClusterWatch(const ClusterView* view, absl::Duration tick)
    : view_(view), tick_(tick), thread_([this] { Run(); }) {}

ClusterWatch::~ClusterWatch() {
  {
    absl::MutexLock lock(&mu_);
    stopping_ = true;
  }
  thread_.join();
}

void ClusterWatch::AddTopology(std::shared_ptr<CallContext> call,
                               std::shared_ptr<TopologyStream> stream) {
  absl::MutexLock lock(&mu_);
  added_.topology.push_back({std::move(call), std::move(stream)});
}

void ClusterWatch::AddLoad(std::shared_ptr<CallContext> call, std::shared_ptr<LoadStream> stream,
                           absl::Duration interval) {
  absl::MutexLock lock(&mu_);
  added_.load.push_back({std::move(call), std::move(stream), interval, absl::InfinitePast()});
}

size_t ClusterWatch::n_watchers() const {
  absl::MutexLock lock(&mu_);
  return n_watchers_ + added_.size();
}

void ClusterWatch::Run() {
  Watchers watchers;  // streams are written to without a lock
  while (true) {
    {
      absl::MutexLock lock(&mu_);
      n_watchers_ = watchers.size();
      const auto news = [this]() ABSL_EXCLUSIVE_LOCKS_REQUIRED(mu_) {
        return stopping_ || !added_.empty();
      };
      mu_.AwaitWithTimeout(absl::Condition(&news),
                           watchers.empty() ? absl::InfiniteDuration() : tick_);
      if (stopping_) return;
      std::move(added_.topology.begin(), added_.topology.end(),
                std::back_inserter(watchers.topology));
      std::move(added_.load.begin(), added_.load.end(), std::back_inserter(watchers.load));
      added_ = {};
      // The topology may never change again, and loads may be asked for once in an hour.
      const auto left = [](const auto& watcher) { return watcher.call->cancelled(); };
      std::erase_if(watchers.topology, left);
      std::erase_if(watchers.load, left);
    }
    TellTopology(&watchers.topology);
    TellLoad(&watchers.load, absl::Now());
  }
}

void ClusterWatch::TellTopology(std::vector<TopologyWatcher>* watchers) const {
  const uint64_t version = view_->topology_version();
  const auto behind = [version](const TopologyWatcher& watcher) {
    return !watcher.told || watcher.version != version;
  };
  if (std::none_of(watchers->begin(), watchers->end(), behind)) return;
  cluster::v1::WatchTopologyResponse response;
  *response.mutable_cluster() = view_->Snapshot();
  std::erase_if(*watchers, [&](TopologyWatcher& watcher) {
    if (!behind(watcher)) return false;
    const StreamWrite written = watcher.stream->Write(response);
    if (written == StreamWrite::kQueued) {
      watcher.told = true;
      watcher.version = response.cluster().topology_version();
    }
    return written == StreamWrite::kClosed;
  });
}

void ClusterWatch::TellLoad(std::vector<LoadWatcher>* watchers, absl::Time now) const {
  const auto due = [now](const LoadWatcher& watcher) { return watcher.due <= now; };
  if (std::none_of(watchers->begin(), watchers->end(), due)) return;
  cluster::v1::WatchExpertLoadResponse response;
  for (cluster::v1::ExpertLoad& load : view_->ExpertLoads()) {
    *response.add_experts() = std::move(load);
  }
  std::erase_if(*watchers, [&](LoadWatcher& watcher) {
    if (!due(watcher)) return false;
    watcher.due = now + watcher.interval;
    return watcher.stream->Write(response) == StreamWrite::kClosed;  // kFull: the next one will do
  });
}

}  // namespace gatefold
