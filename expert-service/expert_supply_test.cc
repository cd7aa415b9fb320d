#include "expert-service/expert_supply.h"

#include <map>
#include <string>

#include "absl/time/time.h"
#include "gmock/gmock.h"
#include "gtest/gtest.h"

namespace gatefold {
namespace {

class FakeExpert final : public HeldExpert {
 public:
  size_t size_bytes() const override { return 1; }
  void CopyRow(ExpertPart, DType, int64_t, void*) const override {}
};

absl::Time g_now = absl::UnixEpoch();

// Gives an expert of 1 MB in a while of its own, or an error.
class FakeSource final : public ExpertSource {
 public:
  FakeSource(LoadedFrom from, absl::Duration time) : from_(from), time_(time) {}
  absl::StatusOr<LoadedExpert> Get(ExpertId, ThreadPool*) override {
    ++n_asked;
    if (!status.ok()) return status;
    g_now += time_;
    return LoadedExpert{std::make_shared<FakeExpert>(), from_, 1'000'000};
  }
  absl::Status status;
  int n_asked = 0;

 private:
  const LoadedFrom from_;
  const absl::Duration time_;
};

class Counts final : public LoadObserver {
 public:
  void OnLoaded(const LoadedExpert& expert) override {
    ++loaded[std::string(LoadedFromName(expert.from))];
  }
  void OnLoadFailed(absl::string_view reason) override { ++failed[std::string(reason)]; }
  std::map<std::string, int> loaded, failed;
};

class ExpertSupplyTest : public testing::Test {
 protected:
  absl::StatusOr<LoadedFrom> Get(ExpertSupply* supply) {
    const auto loaded = supply->Get({0, 0}, nullptr);
    if (!loaded.ok()) return loaded.status();
    return loaded->from;
  }
  FakeSource slow_files_{LoadedFrom::kCheckpoint, absl::Milliseconds(3)};
  FakeSource fast_files_{LoadedFrom::kCheckpoint, absl::ZeroDuration()};
  FakeSource slow_shards_{LoadedFrom::kShard, absl::Milliseconds(3)};
  FakeSource fast_shards_{LoadedFrom::kShard, absl::ZeroDuration()};
  Counts counts_;
};

TEST_F(ExpertSupplyTest, AutoTakesTheFasterSourceAndLooksAtTheOtherNowAndThen) {
  ExpertSupply shards(LoadFrom::kAuto, &slow_files_, &fast_shards_, &counts_, [] { return g_now; });
  for (int i = 0; i < 64; ++i) ASSERT_TRUE(Get(&shards).ok());
  EXPECT_EQ(slow_files_.n_asked, 1 + 3);  // the first, and one in 16
  EXPECT_EQ(counts_.loaded["shard"], 60);
  EXPECT_EQ(counts_.loaded["checkpoint"], 4);
  ExpertSupply files(LoadFrom::kAuto, &fast_files_, &slow_shards_, &counts_, [] { return g_now; });
  for (int i = 0; i < 64; ++i) ASSERT_TRUE(Get(&files).ok());
  EXPECT_EQ(slow_shards_.n_asked, 4);
}

TEST_F(ExpertSupplyTest, TakesTheOtherSourceWhereOneFails) {
  fast_shards_.status = absl::UnavailableError("gone");
  ExpertSupply supply(LoadFrom::kShards, &slow_files_, &fast_shards_, &counts_,
                      [] { return g_now; });
  EXPECT_EQ(*Get(&supply), LoadedFrom::kCheckpoint);
  fast_shards_.status = absl::OkStatus();
  EXPECT_EQ(*Get(&supply), LoadedFrom::kShard);
  ExpertSupply alone(LoadFrom::kCheckpoint, &slow_files_, &fast_shards_, &counts_,
                     [] { return g_now; });
  EXPECT_EQ(*Get(&alone), LoadedFrom::kCheckpoint);
}

TEST_F(ExpertSupplyTest, ShardsThatFailAreAskedLess) {
  fast_shards_.status = absl::UnavailableError("gone");
  ExpertSupply supply(LoadFrom::kAuto, &slow_files_, &fast_shards_, &counts_, [] { return g_now; });
  for (int i = 0; i < 64; ++i) EXPECT_EQ(*Get(&supply), LoadedFrom::kCheckpoint);
  EXPECT_EQ(fast_shards_.n_asked, 4);
}

TEST_F(ExpertSupplyTest, ThatNobodyHasAnExpertSaysNothingOfTheirPace) {
  ExpertSupply supply(LoadFrom::kAuto, &slow_files_, &fast_shards_, &counts_, [] { return g_now; });
  for (int i = 0; i < 4; ++i) ASSERT_TRUE(Get(&supply).ok());
  fast_shards_.status = absl::NotFoundError("nobody");
  for (int i = 0; i < 8; ++i) EXPECT_EQ(*Get(&supply), LoadedFrom::kCheckpoint);
  fast_shards_.status = absl::OkStatus();
  EXPECT_EQ(*Get(&supply), LoadedFrom::kShard);
}

TEST_F(ExpertSupplyTest, WithoutFilesItSaysThatNobodyHasAnExpert) {
  fast_shards_.status = absl::NotFoundError("nobody");
  ExpertSupply supply(LoadFrom::kAuto, nullptr, &fast_shards_, &counts_, [] { return g_now; });
  EXPECT_EQ(Get(&supply).status().code(), absl::StatusCode::kNotFound);
  EXPECT_EQ(counts_.failed["no_holder"], 1);
}

TEST_F(ExpertSupplyTest, WhatTheBackendRefusesIsNotFetchedAgain) {
  slow_files_.status = absl::ResourceExhaustedError("no memory");
  ExpertSupply supply(LoadFrom::kAuto, &slow_files_, &fast_shards_, &counts_, [] { return g_now; });
  EXPECT_EQ(Get(&supply).status().code(), absl::StatusCode::kResourceExhausted);
  EXPECT_EQ(fast_shards_.n_asked, 0);
}

TEST(LoadFromTest, RefusesANameThatIsNone) {
  for (const char* name : {"checkpoint", "shards", "auto"}) EXPECT_TRUE(ParseLoadFrom(name).ok());
  EXPECT_EQ(ParseLoadFrom("disk").status().code(), absl::StatusCode::kInvalidArgument);
}

}  // namespace
}  // namespace gatefold
