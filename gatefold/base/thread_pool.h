#pragma once

#include <atomic>
#include <cstdint>
#include <thread>
#include <vector>

#include "absl/base/thread_annotations.h"
#include "absl/functional/function_ref.h"
#include "absl/synchronization/mutex.h"
#include "absl/time/time.h"

namespace gatefold {

// Threads that share loops. The caller works along, so a pool of one thread starts none and runs
// everything inline. Chunks are handed out as threads ask for them: a core that the machine takes
// away does not hold up the others. Loops must not care which thread runs which chunk.
// Threads: safe; loops of several callers take turns.
class ThreadPool {
 public:
  // `spin`: how long an idle thread watches for the next loop before it sleeps. A decode step has
  // several loops per layer, some microseconds apart, and waking a sleeper takes tens of them;
  // but spinning steals the core from whoever else needs it. Zero where cores are shared.
  ThreadPool(int n_threads, absl::Duration spin);
  ~ThreadPool();
  ThreadPool(const ThreadPool&) = delete;
  ThreadPool& operator=(const ThreadPool&) = delete;

  int n_threads() const { return static_cast<int>(workers_.size()) + 1; }

  using Body = absl::FunctionRef<void(int64_t begin, int64_t end)>;

  // Calls body for chunks of at most `grain` items that cover [0, n_items) once; returns when all
  // are done.
  void ParallelFor(int64_t n_items, int64_t grain, Body body);

 private:
  struct Loop {
    Body body;
    int64_t n_items;
    int64_t grain;
    std::atomic<int64_t> next{0};
  };

  void Work();
  // The loop after number `seen`, or null when the pool ends.
  Loop* AwaitLoop(uint64_t seen);
  static void Take(Loop* loop);

  const absl::Duration spin_;
  absl::Mutex turn_;  // held by the caller whose loop runs

  // A loop is published by raising `generation_` after `loop_`, and is over when every worker has
  // counted itself out of it. Spinning threads watch the atomics, sleeping ones the mutex.
  std::atomic<uint64_t> generation_{0};
  std::atomic<Loop*> loop_{nullptr};
  std::atomic<int> n_busy_{0};
  std::atomic<bool> stopping_{false};
  absl::Mutex sleep_;
  std::atomic<int> n_sleeping_{0};
  std::vector<std::thread> workers_;
};

// For code whose pool may be null: runs inline then.
void ParallelFor(ThreadPool* pool, int64_t n_items, int64_t grain, ThreadPool::Body body);

}  // namespace gatefold
