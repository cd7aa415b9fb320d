#pragma once

#include <thread>

#include "absl/base/thread_annotations.h"
#include "absl/synchronization/mutex.h"
#include "gatefold/rpc/health_listener.h"
#include "router-service/dispatch/directory.h"

namespace gatefold {

// Every expert of every layer has a shard, and attention is there.
bool IsComplete(const RoutingTable& table, bool remote_attention);

// Keeps a router's readiness true to its routing table: it is ready while the table is complete.
// From construction on; owns a thread. Directory and listener outlive it.
class Readiness {
 public:
  Readiness(const Directory* directory, bool remote_attention, HealthListener* health);
  ~Readiness();  // not ready from here on: the first step of a drain

 private:
  void Run();
  bool stopping() const;

  const Directory* const directory_;
  const bool remote_attention_;
  HealthListener* const health_;
  mutable absl::Mutex mu_;
  bool stopping_ ABSL_GUARDED_BY(mu_) = false;
  std::thread thread_;
};

}  // namespace gatefold
