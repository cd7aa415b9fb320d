#include "router-service/gateway/preparation_pool.h"

#include <atomic>

#include "absl/synchronization/notification.h"
#include "gtest/gtest.h"

namespace gatefold {
namespace {

TEST(PreparationPoolTest, RefusesBeyondItsCapacityAndRunsWhatItTook) {
  std::atomic<int> n_run = 0;
  {
    absl::Notification started, go;
    PreparationPool pool(1, 2);
    EXPECT_TRUE(pool.TryPost([&] {
      started.Notify();
      go.WaitForNotification();
    }));
    started.WaitForNotification();
    EXPECT_TRUE(pool.TryPost([&] { ++n_run; }));
    EXPECT_TRUE(pool.TryPost([&] { ++n_run; }));
    EXPECT_FALSE(pool.TryPost([&] { ++n_run; }));
    go.Notify();
  }
  EXPECT_EQ(n_run, 2);
}

}  // namespace
}  // namespace gatefold
