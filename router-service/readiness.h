#pragma once

#include <string>
#include <thread>

#include "absl/base/thread_annotations.h"
#include "absl/synchronization/mutex.h"
#include "absl/time/time.h"
#include "gatefold/rpc/health_listener.h"
#include "router-service/dispatch/directory.h"

namespace gatefold {

// Every expert of every layer has a shard, and attention is there.
bool IsComplete(const RoutingTable& table, bool remote_attention);

// Requests may wait for what the table lacks: somebody can be reached, and where workers of a kind
// are of another model or numerics class, others of it are not.
bool HasProspects(const RoutingTable& table);

// A router is ready once its routing table is complete, and from then on while it has prospects.
// What a table lacks, requests wait for, and only those that need it; were routers not ready
// meanwhile, all of them would be at once, and callers be refused who could have waited or been
// served. A router that reaches nobody is more likely alone with it. From construction on; owns a
// thread. Directory and listener outlive it.
class Readiness {
 public:
  Readiness(const Directory* directory, bool remote_attention, HealthListener* health);
  ~Readiness();  // not ready from here on: the first step of a drain

 private:
  void Run();
  bool stopping() const;
  // Logs which experts nobody serves, whenever that has changed.
  void TellUncovered(const RoutingTable& table);

  const Directory* const directory_;
  const bool remote_attention_;
  HealthListener* const health_;
  std::string uncovered_;  // as told last; the thread's, as is told_
  absl::Time told_ = absl::InfinitePast();
  mutable absl::Mutex mu_;
  bool stopping_ ABSL_GUARDED_BY(mu_) = false;
  std::thread thread_;
};

}  // namespace gatefold
