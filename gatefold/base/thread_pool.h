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
// everything inline. Chunks are handed out as threads ask for them, and a loop is over when its
// chunks are done, whether or not every thread has come: a core that the machine takes away holds
// up what it has begun, and nothing else. Loops must not care which thread runs which chunk, and
// must not start loops of the same pool.
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
  // Joins the first open loop of another generation than `seen`, which becomes its generation.
  // Null when the pool ends.
  Loop* Join(uint64_t* seen);
  void Leave();
  static void Take(Loop* loop);
  // Until done(state_): first watching, then asleep.
  template <typename Done>
  void Await(Done done);
  void WakeSleepers();

  const absl::Duration spin_;
  absl::Mutex turn_;  // held by the caller whose loop runs

  // The loop of now: its generation, whether workers may still join it, how many are inside (see
  // thread_pool.cc). loop_ is written while nobody is inside, and read by those who are.
  alignas(64) std::atomic<uint64_t> state_{0};
  Loop* loop_ = nullptr;
  std::atomic<bool> stopping_{false};
  absl::Mutex sleep_;
  std::atomic<int> n_sleeping_{0};
  std::vector<std::thread> workers_;
};

// For code whose pool may be null: runs inline then.
void ParallelFor(ThreadPool* pool, int64_t n_items, int64_t grain, ThreadPool::Body body);

}  // namespace gatefold
