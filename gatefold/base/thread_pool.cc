#include "gatefold/base/thread_pool.h"

#include <algorithm>
#include <chrono>

#include "gatefold/base/check.h"

namespace gatefold {
namespace {

// state_: the loop's generation above, this bit while workers may join, the number inside below.
constexpr uint64_t kOpen = uint64_t{1} << 16;
constexpr uint64_t kInside = kOpen - 1;

uint64_t Generation(uint64_t state) { return state >> 17; }
uint64_t OpenState(uint64_t generation) { return generation << 17 | kOpen; }

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
  GF_CHECK(n_threads >= 1 && n_threads <= static_cast<int>(kInside));
  for (int i = 1; i < n_threads; ++i) workers_.emplace_back([this] { Work(); });
}

ThreadPool::~ThreadPool() {
  stopping_ = true;
  WakeSleepers();
  for (std::thread& worker : workers_) worker.join();
}

void ThreadPool::Take(Loop* loop) {
  while (true) {
    const int64_t begin = loop->next.fetch_add(loop->grain, std::memory_order_relaxed);
    if (begin >= loop->n_items) return;
    loop->body(begin, std::min(begin + loop->grain, loop->n_items));
  }
}

template <typename Done>
void ThreadPool::Await(Done done) {
  const auto holds = [this, &done] { return done(state_.load()); };
  if (Spin(spin_, holds)) return;
  // Counted before the condition is looked at under the mutex, and looked for after the condition
  // has become true (WakeSleepers): one of the two sees the other.
  n_sleeping_.fetch_add(1);
  {
    absl::MutexLock lock(&sleep_);
    sleep_.Await(absl::Condition(&holds));
  }
  n_sleeping_.fetch_sub(1);
}

void ThreadPool::WakeSleepers() {
  if (n_sleeping_.load() == 0) return;
  absl::MutexLock lock(&sleep_);  // unlocking makes sleepers look at their conditions
}

void ThreadPool::ParallelFor(int64_t n_items, int64_t grain, Body body) {
  grain = std::max<int64_t>(grain, 1);
  if (workers_.empty() || n_items <= grain) {
    if (n_items > 0) body(0, n_items);
    return;
  }
  absl::MutexLock turn(&turn_);
  Loop loop{body, n_items, grain};
  loop_ = &loop;
  state_.store(OpenState(Generation(state_.load()) + 1));
  WakeSleepers();
  Take(&loop);
  // No chunk is left. Who has not come need not come any more.
  if ((state_.fetch_and(~kOpen) & kInside) == 0) return;
  Await([](uint64_t state) { return (state & kInside) == 0; });
}

ThreadPool::Loop* ThreadPool::Join(uint64_t* seen) {
  while (true) {
    Await([this, seen](uint64_t state) {
      return stopping_.load() || ((state & kOpen) != 0 && Generation(state) != *seen);
    });
    if (stopping_) return nullptr;
    uint64_t state = state_.load();
    while ((state & kOpen) != 0 && Generation(state) != *seen) {
      if (!state_.compare_exchange_weak(state, state + 1)) continue;
      *seen = Generation(state);
      return loop_;
    }
  }
}

void ThreadPool::Leave() {
  const uint64_t state = state_.fetch_sub(1);
  if ((state & kInside) == 1 && (state & kOpen) == 0) WakeSleepers();
}

void ThreadPool::Work() {
  uint64_t seen = 0;
  while (Loop* loop = Join(&seen)) {
    Take(loop);
    Leave();
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
