#include "gatefold/base/thread_pool.h"

#include <numeric>
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

INSTANTIATE_TEST_SUITE_P(Pools, ThreadPoolTest,
                         testing::Values(std::pair(1, 0), std::pair(2, 0), std::pair(2, 20),
                                         std::pair(5, 0), std::pair(5, 5), std::pair(17, 0)));

}  // namespace
}  // namespace gatefold
