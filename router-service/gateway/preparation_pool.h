#pragma once

#include <deque>
#include <functional>
#include <thread>
#include <vector>

#include "absl/base/thread_annotations.h"
#include "absl/synchronization/mutex.h"

namespace gatefold {

// A few threads for work that is too long for a poll thread and too short for a service of its own.
// Threads: safe.
class PreparationPool {
 public:
  PreparationPool(int n_threads, int capacity);
  // Runs what was accepted, then joins.
  ~PreparationPool();

  // False if `capacity` tasks are already waiting.
  bool TryPost(std::function<void()> task);

  int capacity() const { return capacity_; }

 private:
  void Run();

  const int capacity_;
  absl::Mutex mu_;
  std::deque<std::function<void()>> tasks_ ABSL_GUARDED_BY(mu_);
  bool stopping_ ABSL_GUARDED_BY(mu_) = false;
  std::vector<std::thread> threads_;
};

}  // namespace gatefold
