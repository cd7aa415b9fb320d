#pragma once

#include <deque>
#include <functional>
#include <thread>
#include <vector>

#include "absl/base/thread_annotations.h"
#include "absl/synchronization/mutex.h"

namespace gatefold {

// A few threads for work that is too long for a poll thread and too short for a service of its own.
// In the order in which it came, but that one thread (of two or more) and half of the places are
// left to what is short: long work of one caller does not keep all others waiting.
// Threads: safe.
class PreparationPool {
 public:
  PreparationPool(int n_threads, int capacity);
  // Runs what was accepted, then joins.
  ~PreparationPool();

  // False if `capacity` tasks are already waiting, or half as many of the long ones.
  enum class Length { kShort, kLong };
  bool TryPost(Length length, std::function<void()> task);

  int capacity() const { return capacity_; }

 private:
  struct Task {
    Length length = Length::kShort;
    std::function<void()> run;
  };

  void Run();
  // The first that may run now.
  std::deque<Task>::iterator Next() ABSL_EXCLUSIVE_LOCKS_REQUIRED(mu_);

  const int capacity_;
  const int max_long_running_;
  absl::Mutex mu_;
  std::deque<Task> tasks_ ABSL_GUARDED_BY(mu_);
  int n_long_running_ ABSL_GUARDED_BY(mu_) = 0;
  bool stopping_ ABSL_GUARDED_BY(mu_) = false;
  std::vector<std::thread> threads_;
};

}  // namespace gatefold
