#include "router-service/gateway/live_requests.h"

#include "gatefold/base/errors.h"
#include "gtest/gtest.h"

namespace gatefold {
namespace {

constexpr absl::Duration kDelay = absl::Seconds(3);

TEST(LiveRequestsTest, RefusesAnIdThatIsAliveAndTakesItAfterwards) {
  LiveRequests live(10);
  auto first = live.Claim("a", kDelay, [] {});
  ASSERT_TRUE(first.ok());
  const absl::Status second = live.Claim("a", kDelay, [] {}).status();
  EXPECT_EQ(second.code(), absl::StatusCode::kAlreadyExists);
  EXPECT_EQ(ReasonOf(second), kDuplicateRequest);
  first->reset();
  EXPECT_TRUE(live.Claim("a", kDelay, [] {}).ok());
}

TEST(LiveRequestsTest, KnowsWhoseTheyAre) {
  LiveRequests live(10);
  const auto lease = live.Claim(
      "a", kDelay, [] {}, "alice");
  EXPECT_TRUE(live.Contains("a", "alice"));
  EXPECT_FALSE(live.Contains("a", "bob"));
  EXPECT_FALSE(live.Contains("b", "alice"));
  EXPECT_TRUE(live.Contains("a", std::nullopt));
}

TEST(LiveRequestsTest, LetsEachCallerHaveAnIdAtATime) {
  LiveRequests live(10);
  int n_cancelled = 0;
  const auto cancel = [&n_cancelled] { ++n_cancelled; };
  const auto of_alice = live.Claim("a", kDelay, cancel, "alice");
  const auto of_bob = live.Claim("a", kDelay, cancel, "bob");
  EXPECT_TRUE(of_bob.ok()) << of_bob.status();
  EXPECT_FALSE(live.Claim("a", kDelay, cancel, "bob").ok());
  EXPECT_TRUE(live.Cancel("a"));  // an administrator, who names no caller
  EXPECT_EQ(n_cancelled, 2);
}

TEST(LiveRequestsTest, MakesIdsOfItsOwn) {
  LiveRequests live(10);
  auto first = live.Claim("", kDelay, [] {}), second = live.Claim("", kDelay, [] {});
  EXPECT_EQ((*first)->id().size(), 32);
  EXPECT_NE((*first)->id(), (*second)->id());
}

TEST(LiveRequestsTest, RefusesBeyondItsCapacityWithADelay) {
  LiveRequests live(1);
  auto first = live.Claim("a", kDelay, [] {});
  const absl::Status second = live.Claim("b", kDelay, [] {}).status();
  EXPECT_EQ(second.code(), absl::StatusCode::kResourceExhausted);
  EXPECT_EQ(ReasonOf(second), kQueueFull);
  EXPECT_EQ(RetryDelayOf(second), kDelay);
}

TEST(LiveRequestsTest, CancelsByIdWithoutHoldingItsLock) {
  LiveRequests live(10);
  std::unique_ptr<LiveRequests::Lease> lease;
  lease = *live.Claim("a", kDelay, [&lease] { lease.reset(); });
  EXPECT_FALSE(live.Cancel("b"));
  EXPECT_TRUE(live.Cancel("a"));
  EXPECT_EQ(live.size(), 0);
}

}  // namespace
}  // namespace gatefold
