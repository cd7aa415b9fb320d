#include "router-service/gateway/preparation_pool.h"

#include <atomic>

#include "absl/synchronization/notification.h"
#include "gtest/gtest.h"

namespace gatefold {
namespace {

using Length = PreparationPool::Length;

TEST(PreparationPoolTest, RefusesBeyondItsCapacityAndRunsWhatItTook) {
  std::atomic<int> n_run = 0;
  {
    absl::Notification started, go;
    PreparationPool pool(1, 2);
    EXPECT_TRUE(pool.TryPost(Length::kShort, [&] {
      started.Notify();
      go.WaitForNotification();
    }));
    started.WaitForNotification();
    EXPECT_TRUE(pool.TryPost(Length::kShort, [&] { ++n_run; }));
    EXPECT_TRUE(pool.TryPost(Length::kShort, [&] { ++n_run; }));
    EXPECT_FALSE(pool.TryPost(Length::kShort, [&] { ++n_run; }));
    go.Notify();
  }
  EXPECT_EQ(n_run, 2);
}

TEST(PreparationPoolTest, LeavesAThreadAndHalfOfItsPlacesToWhatIsShort) {
  std::atomic<int> n_long = 0;
  {
    absl::Notification started, go, short_ran;
    PreparationPool pool(2, 4);
    EXPECT_TRUE(pool.TryPost(Length::kLong, [&] {
      started.Notify();
      go.WaitForNotification();
    }));
    started.WaitForNotification();
    const auto wait = [&] {
      go.WaitForNotification();
      ++n_long;
    };
    EXPECT_TRUE(pool.TryPost(Length::kLong, wait));
    EXPECT_TRUE(pool.TryPost(Length::kLong, wait));
    EXPECT_FALSE(pool.TryPost(Length::kLong, wait));
    EXPECT_TRUE(pool.TryPost(Length::kShort, [&] { short_ran.Notify(); }));
    EXPECT_TRUE(short_ran.WaitForNotificationWithTimeout(absl::Seconds(20)));
    go.Notify();
  }
  EXPECT_EQ(n_long, 2);
}

}  // namespace
}  // namespace gatefold
