#include "router-service/planner/load_average.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

namespace gatefold {
namespace {

using testing::DoubleNear;
using testing::ElementsAre;

constexpr double kPrior = 10;

class LoadAverageTest : public testing::Test {
 protected:
  // A look at one shard, ten seconds after the one before.
  void Look(uint64_t incarnation, std::vector<std::pair<uint32_t, uint64_t>> counters) {
    load_.Note(0, incarnation, counters);
    load_.Advance(now_ += absl::Seconds(10));
  }

  LoadAverage load_{2, absl::Seconds(10)};
  absl::Time now_ = absl::UnixEpoch();
};

TEST_F(LoadAverageTest, StartsWithAllAlike) { EXPECT_THAT(load_.Rates(), ElementsAre(10, 10)); }

TEST_F(LoadAverageTest, HalvesTheWeightOfThePast) {
  Look(1, {{0, 5000}});  // counted before anybody looked
  EXPECT_THAT(load_.Rates(), ElementsAre(kPrior, kPrior));
  Look(1, {{0, 6000}});  // 100 a second
  EXPECT_THAT(load_.Rates(), ElementsAre(DoubleNear(kPrior + 50, 1e-9), kPrior));
  Look(1, {{0, 6000}});
  EXPECT_THAT(load_.Rates(), ElementsAre(DoubleNear(kPrior + 25, 1e-9), kPrior));
}

TEST_F(LoadAverageTest, ARestartedShardStartsAgain) {
  Look(1, {{1, 100}});
  Look(1, {{1, 1100}});
  Look(2, {{1, 900}});  // of its new life; unknown time
  Look(2, {{1, 900}});
  EXPECT_THAT(load_.Rates(), ElementsAre(kPrior, DoubleNear(kPrior + 12.5, 1e-9)));
}

TEST_F(LoadAverageTest, AddsUpReplicas) {
  Look(1, {{0, 0}});
  load_.Note(1, 7, {{0, 0}});
  load_.Note(1, 7, {{0, 1000}});
  Look(1, {{0, 1000}});
  EXPECT_THAT(load_.Rates(), ElementsAre(DoubleNear(kPrior + 100, 1e-9), kPrior));
}

}  // namespace
}  // namespace gatefold
