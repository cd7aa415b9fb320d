#include "router-service/dispatch/hedging.h"

#include "gmock/gmock.h"
#include "gtest/gtest.h"
#include "router-service/dispatch/shard_pace.h"

namespace gatefold {
namespace {

using testing::HasSubstr;

const absl::Time kNow = absl::UnixEpoch() + absl::Hours(1);

TEST(HedgeOptionsTest, NameTheFlagThatIsOutOfBounds) {
  EXPECT_TRUE(HedgeOptions().Validate().ok());
  HedgeOptions options;
  options.quantile = 1;
  EXPECT_THAT(std::string(options.Validate().message()), HasSubstr("--hedge-quantile is 1"));
  options = HedgeOptions();
  options.floor = absl::ZeroDuration();
  EXPECT_THAT(std::string(options.Validate().message()), HasSubstr("--hedge-floor is 0"));
  options = HedgeOptions();
  options.budget = 2;
  EXPECT_THAT(std::string(options.Validate().message()), HasSubstr("--hedge-budget is 2"));
}

TEST(HedgeBudgetTest, AllowsABurstAndThenAShareOfTheCalls) {
  HedgeBudget budget(0.125);
  int n_taken = 0;
  while (budget.Take(1)) ++n_taken;
  EXPECT_EQ(n_taken, static_cast<int>(HedgeBudget::kBurst));
  for (int i = 0; i < 80; ++i) {
    budget.OnCall();
    n_taken += budget.Take(1);
  }
  EXPECT_EQ(n_taken, static_cast<int>(HedgeBudget::kBurst) + 10);
  EXPECT_FALSE(budget.Take(1));
}

TEST(ShardPaceTest, KnowsTheQuantileOfRecentAnswersBySizeOfCall) {
  ShardPace pace(2, 0.75);
  EXPECT_EQ(pace.Usual(0, 1), absl::InfiniteDuration());
  for (int ms : {1, 2, 3, 100}) pace.Answered(0, 1, absl::Milliseconds(ms));
  EXPECT_EQ(absl::ToInt64Milliseconds(pace.Usual(0, 1) + absl::Microseconds(1)), 100);
  for (int i = 0; i < 28; ++i) pace.Answered(0, 1, absl::Milliseconds(2));
  EXPECT_LT(pace.Usual(0, 1), absl::Milliseconds(3));
  EXPECT_EQ(pace.Usual(1, 1), absl::InfiniteDuration());
  // What is long ago is forgotten.
  for (int i = 0; i < ShardPace::kWindow; ++i) pace.Answered(0, 1, absl::Seconds(1));
  EXPECT_GT(pace.Usual(0, 1), absl::Milliseconds(900));
}

TEST(ShardPaceTest, GuessesForASizeThatIsRareFromOthers) {
  ShardPace pace(1, 0.95);
  for (int i = 0; i < ShardPace::kFewest; ++i) pace.Answered(0, 16, absl::Milliseconds(8));
  pace.Answered(0, 64, absl::Seconds(1));  // once is no rule
  const auto ms = [&](size_t n_rows) {
    return absl::ToInt64Milliseconds(pace.Usual(0, n_rows) + absl::Microseconds(1));
  };
  EXPECT_EQ(ms(16), 8);
  EXPECT_EQ(ms(1), 8);
  EXPECT_EQ(ms(64), 4 * 8);
  EXPECT_EQ(ms(500), 16 * 8);
}

TEST(ShardPaceTest, AShardIsSilentAsLongAsItOwesAnAnswer) {
  ShardPace pace(2, 0.95);
  pace.SetSilent(0);  // its calls have failed meanwhile
  EXPECT_FALSE(pace.Silent(0));
  pace.AddOwed(0, 2);
  pace.AddOwed(1, 1);
  pace.SetSilent(0);
  EXPECT_TRUE(pace.Silent(0));
  EXPECT_GT(pace.Lag(0), pace.Lag(1));
  pace.AddOwed(0, -1);
  EXPECT_TRUE(pace.Silent(0));
  pace.AddOwed(0, -1);
  EXPECT_FALSE(pace.Silent(0));
  EXPECT_EQ(pace.Lag(0), 0);
}

TEST(ShardPaceTest, AShardThatLagsIsTriedLaterEachTimeUntilItIsInTime) {
  ShardPace pace(2, 0.95);
  EXPECT_EQ(pace.Lag(0), 0);
  EXPECT_FALSE(pace.AnyStruck());
  absl::Time now = kNow;
  for (const absl::Duration penalty :
       {ShardPace::kFirstPenalty, 2 * ShardPace::kFirstPenalty, 4 * ShardPace::kFirstPenalty}) {
    pace.Strike(0, now);
    EXPECT_FALSE(pace.TrialDue(0, now + penalty - absl::Milliseconds(1)));
    now += penalty;
    EXPECT_TRUE(pace.TrialDue(0, now));
  }
  for (int i = 0; i < 20; ++i) {
    pace.Strike(0, now);
    pace.Strike(0, now);  // is known
    now += ShardPace::kLongestPenalty;
    EXPECT_TRUE(pace.TrialDue(0, now));
  }
  EXPECT_EQ(pace.Lag(0), 23);  // all its strikes
  EXPECT_TRUE(pace.AnyStruck());
  pace.InTime(0);
  EXPECT_EQ(pace.Lag(0), 0);
  EXPECT_FALSE(pace.TrialDue(0, now));
  EXPECT_FALSE(pace.AnyStruck());
  pace.Strike(0, now);
  EXPECT_TRUE(pace.TrialDue(0, now + ShardPace::kFirstPenalty));
  pace.Forget(0);
  EXPECT_FALSE(pace.AnyStruck());
}

TEST(ShardPaceTest, AShardLagsOnceItIsSlowAgainAndAgain) {
  ShardPace pace(1, 0.95);
  for (int i = 1; i < ShardPace::kSlowInARow; ++i) pace.Slow(0, kNow);
  pace.InTime(0);
  for (int i = 1; i < ShardPace::kSlowInARow; ++i) pace.Slow(0, kNow);
  EXPECT_EQ(pace.Lag(0), 0);
  for (int i = 0; i < ShardPace::kFewest; ++i) pace.Answered(0, 1, absl::Milliseconds(8));
  pace.Slow(0, kNow);
  EXPECT_EQ(pace.Lag(0), 1);
  pace.InTime(0);
  // How slow it was says nothing any more.
  EXPECT_EQ(pace.Usual(0, 1), absl::InfiniteDuration());
}

TEST(ShardPaceTest, AShardLagsAsLongAsItOwesAnAnswer) {
  ShardPace pace(1, 0.95);
  pace.Strike(0, kNow);
  pace.AddOwed(0, 1);
  EXPECT_EQ(pace.Lag(0), ShardPace::kOwes);
  EXPECT_FALSE(pace.TrialDue(0, kNow + absl::Hours(1)));
  pace.AddOwed(0, -1);
  EXPECT_EQ(pace.Lag(0), 1);
}

}  // namespace
}  // namespace gatefold
