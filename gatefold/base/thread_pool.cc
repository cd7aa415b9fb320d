#include "gatefold/base/thread_pool.h"

#include <algorithm>
#include <chrono>

#include "gatefold/base/check.h"

namespace gatefold {
namespace {

void Pause() { __builtin_ia32_pause(); }

// Until `done` holds or the time is over; true if it holds.
template <typename Done>
bool Spin(absl::Duration time, Done done) {
  if (done()) return true;
  if (time <= absl::ZeroDuration()) return false;
  const auto end = std::chrono::steady_clock::now() + absl::ToChronoNanoseconds(time);
  do {
    for (int i = 0; i < 64; ++i) {
      Pause();
      if (done()) return true;
    }
  } while (std::chrono::steady_clock::now() < end);
  return false;
}

}  // namespace

ThreadPool::ThreadPool(int n_threads, absl::Duration spin) : spin_(spin) {
  GF_CHECK(n_threads >= 1);
  for (int i = 1; i < n_threads; ++i) workers_.emplace_back([this] { Work(); });
}

ThreadPool::~ThreadPool() {
  {
    absl::MutexLock lock(&sleep_);
    stopping_ = true;
  }
  for (std::thread& worker : workers_) worker.join();
}

void ThreadPool::Take(Loop* loop) {
  while (true) {
    const int64_t begin = loop->next.fetch_add(loop->grain, std::memory_order_relaxed);
    if (begin >= loop->n_items) return;
    loop->body(begin, std::min(begin + loop->grain, loop->n_items));
  }
}

void ThreadPool::ParallelFor(int64_t n_items, int64_t grain, Body body) {
  grain = std::max<int64_t>(grain, 1);
  if (workers_.empty() || n_items <= grain) {
    if (n_items > 0) body(0, n_items);
    return;
  }
  absl::MutexLock turn(&turn_);
  Loop loop{body, n_items, grain};
  n_busy_.store(static_cast<int>(workers_.size()), std::memory_order_relaxed);
  loop_.store(&loop, std::memory_order_relaxed);
  generation_.fetch_add(1, std::memory_order_seq_cst);
  if (n_sleeping_.load(std::memory_order_seq_cst) > 0) {
    absl::MutexLock wake(&sleep_);  // unlocking makes sleepers look at the generation again
  }
  Take(&loop);
  const auto over = [this] { return n_busy_.load(std::memory_order_acquire) == 0; };
  if (!Spin(spin_, over)) {
    n_sleeping_.fetch_add(1, std::memory_order_seq_cst);
    {
      absl::MutexLock lock(&sleep_);
      sleep_.Await(absl::Condition(&over));
    }
    n_sleeping_.fetch_sub(1, std::memory_order_relaxed);
  }
}

ThreadPool::Loop* ThreadPool::AwaitLoop(uint64_t seen) {
  const auto news = [this, seen] {
    return generation_.load(std::memory_order_acquire) != seen ||
           stopping_.load(std::memory_order_relaxed);
  };
  if (!Spin(spin_, news)) {
    n_sleeping_.fetch_add(1, std::memory_order_seq_cst);
    {
      absl::MutexLock lock(&sleep_);
      sleep_.Await(absl::Condition(&news));
    }
    n_sleeping_.fetch_sub(1, std::memory_order_relaxed);
  }
  if (generation_.load(std::memory_order_acquire) == seen) return nullptr;
  return loop_.load(std::memory_order_acquire);
}

void ThreadPool::Work() {
  uint64_t seen = 0;
  while (Loop* loop = AwaitLoop(seen)) {
    ++seen;  // a loop ends only when every worker took part, so none is skipped
    Take(loop);
    if (n_busy_.fetch_sub(1, std::memory_order_seq_cst) == 1 &&
        n_sleeping_.load(std::memory_order_seq_cst) > 0) {
      absl::MutexLock wake(&sleep_);
    }
  }
}

void ParallelFor(ThreadPool* pool, int64_t n_items, int64_t grain, ThreadPool::Body body) {
  if (pool != nullptr) {
    pool->ParallelFor(n_items, grain, body);
  } else if (n_items > 0) {
    body(0, n_items);
  }
}

}  // namespace gatefold
