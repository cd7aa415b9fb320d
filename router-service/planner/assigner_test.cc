#include "router-service/planner/assigner.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

namespace gatefold {
namespace {

using testing::ElementsAre;
using testing::IsEmpty;
using testing::Optional;

constexpr absl::Duration kGrace = absl::Seconds(3);

class AssignerTest : public testing::Test {
 protected:
  // A step of `seconds`, after which every shard announces what it was told.
  std::vector<std::optional<std::vector<uint32_t>>> Step(int seconds = 1) {
    now_ += absl::Seconds(seconds);
    auto next = assigner_.Next(shards_, plan_, now_);
    for (size_t i = 0; i < next.size(); ++i) {
      if (next[i].has_value()) shards_[i].announced = *next[i];
    }
    return next;
  }

  Assigner assigner_{6, 10, kGrace};
  absl::Time now_ = absl::UnixEpoch();
  std::vector<ShardView> shards_;
  Plan plan_;
};

TEST_F(AssignerTest, LoadsAtOnceWhatNobodyHas) {
  shards_ = {{true, false, 0, {}}, {true, false, 0, {}}};
  plan_.experts = {{0, 2, 4}, {1, 3, 5}};
  EXPECT_THAT(Step(), ElementsAre(Optional(ElementsAre(0, 2, 4)), Optional(ElementsAre(1, 3, 5))));
}

TEST_F(AssignerTest, TakesAnExpertAwayOnlyWhenItIsSettledElsewhere) {
  shards_ = {{true, false, 0, {0, 1, 2, 3, 4, 5}}, {true, false, 0, {}}};
  plan_.experts = {{0, 1, 2}, {3, 4, 5}};
  // The second loads; the first keeps all.
  EXPECT_THAT(Step(), ElementsAre(Optional(ElementsAre(0, 1, 2, 3, 4, 5)),
                                  Optional(ElementsAre(3, 4, 5))));
  // Announced; routers may not know yet.
  EXPECT_THAT(Step()[0], Optional(ElementsAre(0, 1, 2, 3, 4, 5)));
  EXPECT_THAT(Step(3)[0], Optional(ElementsAre(0, 1, 2)));
}

TEST_F(AssignerTest, WaitsForAllWhoAreToHoldIt) {
  shards_ = {{true, false, 0, {0}}, {true, false, 0, {}}, {true, false, 0, {}}};
  plan_.experts = {{}, {0}, {0}};
  shards_[2].ready = false;
  Step();
  EXPECT_THAT(Step(100)[0], Optional(ElementsAre(0)));  // one of two has it
  shards_[2].ready = true;
  Step();
  Step();
  EXPECT_THAT(Step(4)[0], Optional(IsEmpty()));
}

TEST_F(AssignerTest, AHolderThatGoesAwayStartsTheWaitAgain) {
  shards_ = {{true, false, 0, {0}}, {true, false, 0, {}}};
  plan_.experts = {{}, {0}};
  Step();
  Step();
  shards_[1].ready = false;
  EXPECT_THAT(Step(10)[0], Optional(ElementsAre(0)));
  shards_[1].ready = true;
  EXPECT_THAT(Step(10)[0], Optional(ElementsAre(0)));
  EXPECT_THAT(Step(3)[0], Optional(IsEmpty()));
}

TEST_F(AssignerTest, LeavesDrainingAndAbsentShardsAlone) {
  shards_ = {{true, true, 0, {0, 1}}, {false, false, 0, {}}, {true, false, 0, {}}};
  plan_.experts = {{}, {}, {0, 1}};
  const auto next = Step();
  EXPECT_EQ(next[0], std::nullopt);
  EXPECT_EQ(next[1], std::nullopt);
  EXPECT_THAT(next[2], Optional(ElementsAre(0, 1)));
}

TEST_F(AssignerTest, NeverAsksForMoreThanFits) {
  // Two full shards, a third that is to take two experts of each; they get others then.
  shards_ = {{true, false, 30, {0, 1, 2}}, {true, false, 30, {3, 4, 5}}, {true, false, 20, {}}};
  plan_.experts = {{1, 2, 4}, {3, 5}, {0, 4}};
  for (int i = 0; i < 20; ++i) {
    Step();
    for (const ShardView& shard : shards_) {
      EXPECT_LE(shard.announced.size() * 10, shard.capacity_bytes);
    }
    for (uint32_t item = 0; item < 6; ++item) {
      EXPECT_TRUE(std::any_of(shards_.begin(), shards_.end(), [item](const ShardView& shard) {
        return std::binary_search(shard.announced.begin(), shard.announced.end(), item);
      })) << item;
    }
  }
  EXPECT_THAT(shards_[0].announced, ElementsAre(1, 2, 4));
  EXPECT_THAT(shards_[1].announced, ElementsAre(3, 5));
  EXPECT_THAT(shards_[2].announced, ElementsAre(0, 4));
}

}  // namespace
}  // namespace gatefold
