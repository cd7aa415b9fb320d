#include "router-service/planner/shard_speeds.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <cmath>
#include <random>

namespace gatefold {
namespace {

using testing::DoubleNear;

const ShardKind kCpu = {"cpu", "avx512", 16};
const ShardKind kSmallCpu = {"cpu", "avx512", 4};
const ShardKind kOtherCpu = {"cpu", "avx2", 16};
const ShardKind kGpu = {"cuda", "H100", 0};

class ShardSpeedsTest : public testing::Test {
 protected:
  // What one shard has done since the last time.
  void Compute(int shard, const ShardKind& kind, double n_rows, double seconds) {
    Counted& counted = counted_[shard];
    counted.n_rows += n_rows;
    counted.seconds += seconds;
    Note(shard, kind);
  }
  void Note(int shard, const ShardKind& kind) {
    const Counted& counted = counted_[shard];
    speeds_.Note(shard, counted.incarnation, kind, static_cast<uint64_t>(counted.n_rows),
                 absl::Seconds(counted.seconds));
  }
  bool Advance(absl::Duration time = absl::Seconds(1)) { return speeds_.Advance(now_ += time); }
  double Ratio(const ShardKind& a, const ShardKind& b) const {
    return speeds_.Of(a) / speeds_.Of(b);
  }

  struct Counted {
    uint64_t incarnation = 1;
    double n_rows = 0, seconds = 0;
  };
  std::map<int, Counted> counted_;
  ShardSpeeds speeds_{absl::Minutes(5)};
  absl::Time now_ = absl::UnixEpoch();
};

TEST_F(ShardSpeedsTest, GuessesByThreadsAndTakesADeviceForSeveralCpus) {
  for (const ShardKind& kind : {kCpu, kSmallCpu, kGpu}) Compute(0, kind, 0, 0);
  EXPECT_FALSE(Advance());
  EXPECT_EQ(Ratio(kCpu, kSmallCpu), 4);
  EXPECT_EQ(Ratio(kGpu, kCpu), 4);
}

TEST_F(ShardSpeedsTest, MeasuresRowsPerSecondOfComputing) {
  Compute(0, kCpu, 30'000, 30);
  Compute(1, kGpu, 60'000, 3);
  EXPECT_TRUE(Advance());
  EXPECT_THAT(Ratio(kGpu, kCpu), DoubleNear(20, 1e-9));
  // One that idles is no slower for it.
  for (int i = 0; i < 3600; ++i) {
    Compute(0, kCpu, 100, 0.1);
    Note(1, kGpu);
    EXPECT_FALSE(Advance());
  }
  EXPECT_THAT(Ratio(kGpu, kCpu), DoubleNear(20, 1e-9));
}

TEST_F(ShardSpeedsTest, TakesShardsOfOneKindForEquallyFast) {
  Compute(0, kCpu, 30'000, 30);  // with the hot experts
  Compute(1, kCpu, 10'000, 30);
  Compute(2, kGpu, 40'000, 1);
  Compute(3, kGpu, 40'000, 1);
  EXPECT_TRUE(Advance());
  EXPECT_THAT(Ratio(kGpu, kCpu), DoubleNear(60, 1e-9));
}

TEST_F(ShardSpeedsTest, BelievesInNothingThatHardlyCameUp) {
  Compute(0, kCpu, 10'000, 10);
  Compute(1, kGpu, 5'000, 1);
  EXPECT_FALSE(Advance());
  EXPECT_EQ(Ratio(kGpu, kCpu), 4);
  Compute(1, kGpu, 6'000, 0.1);
  EXPECT_FALSE(Advance());  // the CPU's rows of a second ago count a little less by now
  Compute(0, kCpu, 1'000, 1);
  EXPECT_TRUE(Advance());
  EXPECT_NEAR(Ratio(kGpu, kCpu), 10, 0.1);
}

TEST_F(ShardSpeedsTest, RatesTheUnmeasuredByTheSlowestLikeThem) {
  Compute(0, kCpu, 16'000, 10);       // 100 for a thread
  Compute(1, kOtherCpu, 16'000, 20);  // 50
  Compute(2, kGpu, 160'000, 10);
  EXPECT_TRUE(Advance());
  EXPECT_THAT(speeds_.Of(kSmallCpu), DoubleNear(4 * 100, 1e-9));
  EXPECT_THAT(speeds_.Of({"cpu", "scalar", 2}), DoubleNear(2 * 50, 1e-9));
  EXPECT_THAT(speeds_.Of({"cuda", "H200", 0}), DoubleNear(16'000, 1e-9));
  EXPECT_EQ(speeds_.Measured().size(), 3u);
}

// Experts would be loaded for each change.
TEST_F(ShardSpeedsTest, KeepsSpeedsThatHardlyChangeAgainstEachOther) {
  std::mt19937 random(1);
  std::uniform_real_distribution<double> noise(0.9, 1.1);
  const auto work = [&](double cpu, double gpu) {
    int n_changes = 0;
    for (int i = 0; i < 1000; ++i) {
      Compute(0, kCpu, cpu * noise(random), 1);
      Compute(1, kGpu, gpu * noise(random), 1);
      n_changes += Advance();
    }
    return n_changes;
  };
  EXPECT_EQ(work(1'000, 20'000), 1);
  EXPECT_EQ(work(9'000, 180'000), 0);  // longer prompts: all compute more rows at a time
  EXPECT_EQ(work(1'000, 22'000), 0);
  EXPECT_EQ(work(1'000, 40'000), 2);
  EXPECT_NEAR(Ratio(kGpu, kCpu), 35, 6);
}

TEST_F(ShardSpeedsTest, KeepsSpeedsForAWhileWhateverHappens) {
  for (const int i : {1, 2}) {
    Compute(0, kCpu, 100'000, 100);
    Compute(1, kGpu, 100'000, 10 / i);
    EXPECT_EQ(Advance(), i == 1);
  }
  EXPECT_FALSE(Advance(absl::Seconds(148)));
  EXPECT_TRUE(Advance(absl::Seconds(1)));
}

TEST_F(ShardSpeedsTest, ARestartedShardStartsAgain) {
  Compute(0, kCpu, 20'000, 20);
  Compute(1, kGpu, 200'000, 10);
  EXPECT_TRUE(Advance());
  counted_[0] = {2, 0, 0};
  for (int i = 0; i < 200; ++i) {
    Compute(0, kCpu, 1'000, 1);
    Compute(1, kGpu, 20'000, 1);
    EXPECT_FALSE(Advance());
  }
  EXPECT_THAT(Ratio(kGpu, kCpu), DoubleNear(20, 1e-9));
  // What it does in its new life counts.
  counted_[0] = {3, 0, 0};
  Compute(0, kCpu, 40'000, 400);
  EXPECT_TRUE(Advance());
  EXPECT_GT(Ratio(kGpu, kCpu), 40);
}

TEST_F(ShardSpeedsTest, ThoseThatIdleGoAlongWithTheOthers) {
  Compute(0, kCpu, 10'000, 10);
  Compute(1, kGpu, 200'000, 10);
  Compute(2, kOtherCpu, 10'000, 20);
  EXPECT_TRUE(Advance());
  EXPECT_THAT(Ratio(kOtherCpu, kCpu), DoubleNear(0.5, 1e-9));
  for (const double rows : {10, 15}) {  // after long idling, longer prompts; and more so on the GPU
    Note(2, kOtherCpu);
    Compute(0, kCpu, 10'000 * rows, 10);
    Compute(1, kGpu, 200'000 * rows * (rows > 10 ? 2 : 1), 10);
    EXPECT_EQ(Advance(absl::Hours(2)), rows > 10);
  }
  EXPECT_NEAR(Ratio(kGpu, kCpu), 40, 0.1);
  EXPECT_NEAR(Ratio(kOtherCpu, kCpu), 0.5 * std::sqrt(2), 0.01);
}

TEST_F(ShardSpeedsTest, ForgetsKindsThatAreLongGone) {
  Compute(0, kCpu, 10'000, 10);
  Compute(1, kGpu, 200'000, 10);
  EXPECT_TRUE(Advance());
  Note(0, kCpu);
  Advance(absl::Hours(1));
  EXPECT_EQ(speeds_.Measured().size(), 2u);
  Note(0, kCpu);
  Advance(absl::Hours(1));
  ASSERT_EQ(speeds_.Measured().size(), 1u);
  EXPECT_EQ(speeds_.Measured()[0].kind, kCpu);
}

// A planner that starts anew knows what shards have counted so far, and does not believe in it for
// ever.
TEST_F(ShardSpeedsTest, StartsFromWhatShardsHaveCounted) {
  Compute(0, kCpu, 1e9, 1e6);
  Compute(1, kGpu, 20e9, 1e6);
  EXPECT_TRUE(Advance());
  EXPECT_THAT(Ratio(kGpu, kCpu), DoubleNear(20, 1e-6));
  for (int i = 0; i < 600; ++i) {
    Compute(0, kCpu, 1'000, 1);
    Compute(1, kGpu, 60'000, 1);
    Advance();
  }
  EXPECT_GT(Ratio(kGpu, kCpu), 40);
}

TEST_F(ShardSpeedsTest, AnAnswerThatCameLateCountsNothingTwice) {
  Compute(0, kCpu, 10'000, 10);
  Compute(1, kGpu, 100'000, 10);
  speeds_.Note(1, 1, kGpu, 50'000, absl::Seconds(1));
  Note(1, kGpu);
  EXPECT_TRUE(Advance());
  EXPECT_THAT(Ratio(kGpu, kCpu), DoubleNear(10, 1e-9));
}

// A device's calls take a time of their own, so that it looks slow while it has little to do.
TEST_F(ShardSpeedsTest, SettlesWhereAllTakeEquallyLong) {
  double cpu_seconds = 0, gpu_seconds = 0;
  int n_changes = 0;
  for (int i = 0; i < 3600; ++i) {
    const double rows = 10'000, share = speeds_.Of(kGpu) / (speeds_.Of(kGpu) + speeds_.Of(kCpu));
    cpu_seconds = 1e-4 * rows * (1 - share);
    gpu_seconds = 0.1 + 5e-6 * rows * share;
    Compute(0, kCpu, rows * (1 - share), cpu_seconds);
    Compute(1, kGpu, rows * share, gpu_seconds);
    n_changes += Advance();
  }
  EXPECT_GT(cpu_seconds / gpu_seconds, 1 / 1.3);
  EXPECT_LT(cpu_seconds / gpu_seconds, 1.3);
  EXPECT_LE(n_changes, 4);
}

}  // namespace
}  // namespace gatefold
