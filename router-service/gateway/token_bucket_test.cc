#include "router-service/gateway/token_bucket.h"

#include "gtest/gtest.h"

namespace gatefold {
namespace {

constexpr absl::Duration kNone = absl::ZeroDuration();

class TokenBucketTest : public ::testing::Test {
 protected:
  absl::Time now_ = absl::FromUnixSeconds(1000);
  TokenBucket bucket_{60, now_};
};

TEST_F(TokenBucketTest, StartsFullAndFillsEvenly) {
  for (int i = 0; i < 60; ++i) EXPECT_EQ(bucket_.Take(1, now_), kNone) << i;
  EXPECT_EQ(bucket_.Take(1, now_), absl::Seconds(1));
  EXPECT_EQ(bucket_.Take(10, now_), absl::Seconds(10));
  now_ += absl::Milliseconds(999);
  EXPECT_EQ(bucket_.Take(1, now_), absl::Milliseconds(1));
  now_ += absl::Milliseconds(1);
  EXPECT_EQ(bucket_.Take(1, now_), kNone);
  EXPECT_EQ(bucket_.Take(1, now_), absl::Seconds(1));
}

TEST_F(TokenBucketTest, HoldsNoMoreThanAMinute) {
  now_ += absl::Hours(5);
  EXPECT_EQ(bucket_.Take(60, now_), kNone);
  EXPECT_NE(bucket_.Take(1, now_), kNone);
}

TEST_F(TokenBucketTest, WhoWaitsAsToldIsServed) {
  TokenBucket bucket(7, now_);
  EXPECT_EQ(bucket.Take(7, now_), kNone);
  for (int i = 0; i < 1000; ++i) {
    now_ += bucket.Take(3, now_);
    ASSERT_EQ(bucket.Take(3, now_), kNone) << i;
  }
}

TEST_F(TokenBucketTest, WhatIsMoreThanItHoldsWaitsForAFullBucketAndIsOwed) {
  EXPECT_EQ(bucket_.Take(1, now_), kNone);
  EXPECT_EQ(bucket_.Take(120, now_), absl::Seconds(1));
  now_ += absl::Seconds(1);
  EXPECT_EQ(bucket_.Take(120, now_), kNone);
  EXPECT_EQ(bucket_.Take(1, now_), absl::Seconds(61));
  bucket_.GiveBack(100);
  EXPECT_EQ(bucket_.Take(40, now_), kNone);
  EXPECT_EQ(bucket_.Take(1, now_), absl::Seconds(1));
}

TEST_F(TokenBucketTest, GivingBackDoesNotFillItBeyondItsSize) {
  bucket_.GiveBack(1000);
  EXPECT_EQ(bucket_.Take(60, now_), kNone);
  EXPECT_NE(bucket_.Take(1, now_), kNone);
}

TEST_F(TokenBucketTest, BearsAClockThatIsSetBack) {
  EXPECT_EQ(bucket_.Take(60, now_), kNone);
  EXPECT_EQ(bucket_.Take(1, now_ - absl::Hours(1)), absl::Seconds(1));
  EXPECT_EQ(bucket_.Take(1, now_ + absl::Seconds(1)), kNone);
}

}  // namespace
}  // namespace gatefold
