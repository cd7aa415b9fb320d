#include "gatefold/base/thread_pool.h"

#include <atomic>
#include <thread>
#include <utility>
#include <vector>

#include "gtest/gtest.h"

namespace gatefold {
namespace {

class ThreadPoolTest : public testing::TestWithParam<std::pair<int, int>> {};

TEST_P(ThreadPoolTest, EveryItemRunsOnce) {
  const auto [n_threads, spin_us] = GetParam();
  ThreadPool pool(n_threads, absl::Microseconds(spin_us));
  for (int round = 0; round < 300; ++round) {
    const int64_t n = round * 7 % 101;
    std::vector<std::atomic<int>> runs(n);
    pool.ParallelFor(n, 1 + round % 5, [&](int64_t begin, int64_t end) {
      for (int64_t i = begin; i < end; ++i) ++runs[i];
    });
    for (int64_t i = 0; i < n; ++i) ASSERT_EQ(runs[i], 1) << round;
  }
}

TEST_P(ThreadPoolTest, SeveralCallersTakeTurns) {
  const auto [n_threads, spin_us] = GetParam();
  ThreadPool pool(n_threads, absl::Microseconds(spin_us));
  std::atomic<int64_t> sum{0};
  std::vector<std::thread> callers;
  for (int c = 0; c < 3; ++c) {
    callers.emplace_back([&] {
      for (int round = 0; round < 100; ++round) {
        pool.ParallelFor(64, 4, [&](int64_t begin, int64_t end) { sum += end - begin; });
      }
    });
  }
  for (std::thread& caller : callers) caller.join();
  EXPECT_EQ(sum, 3 * 100 * 64);
}

TEST_P(ThreadPoolTest, ReturnsWhenTheLastChunkIsDone) {
  const auto [n_threads, spin_us] = GetParam();
  if (n_threads == 1) GTEST_SKIP() << "nobody to wait for";
  ThreadPool pool(n_threads, absl::Microseconds(spin_us));
  const std::thread::id caller = std::this_thread::get_id();
  for (int round = 0; round < 20; ++round) {
    std::atomic<int> n_arrived{0};
    std::atomic<bool> other_done{false};
    // Two chunks that wait for each other run on two threads; the caller's is done first.
    pool.ParallelFor(2, 1, [&](int64_t, int64_t) {
      ++n_arrived;
      while (n_arrived < 2) std::this_thread::yield();
      if (std::this_thread::get_id() == caller) return;
      for (int i = 0; i < 100; ++i) std::this_thread::yield();
      other_done = true;
    });
    ASSERT_TRUE(other_done);
  }
}

INSTANTIATE_TEST_SUITE_P(Pools, ThreadPoolTest,
                         testing::Values(std::pair(1, 0), std::pair(2, 0), std::pair(2, 20),
                                         std::pair(5, 0), std::pair(5, 5), std::pair(17, 0)));

}  // namespace
}  // namespace gatefold
