#include "router-service/planner/assigner.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <algorithm>
#include <random>
#include <string>

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
  EXPECT_THAT(Step(),
              ElementsAre(Optional(ElementsAre(0, 1, 2, 3, 4, 5)), Optional(ElementsAre(3, 4, 5))));
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

TEST_F(AssignerTest, TellsAShardThatEndsWhatIsStillNeeded) {
  shards_ = {{true, true, 30, {0, 1, 2}, /*ending=*/true}, {true, false, 20, {}}};
  plan_.experts = {{}, {0, 1}};  // for the third there is no room
  EXPECT_THAT(Step(), ElementsAre(Optional(ElementsAre(0, 1, 2)), Optional(ElementsAre(0, 1))));
  EXPECT_THAT(Step()[0], Optional(ElementsAre(0, 1, 2)));
  EXPECT_THAT(Step(3)[0], Optional(ElementsAre(2)));
  plan_.experts[1] = {0, 1, 2};
  shards_[1].capacity_bytes = 30;
  // One replica is enough, should another not come.
  shards_.push_back({false, false, 0, {}});
  plan_.experts.push_back({2});
  Step();
  Step();
  EXPECT_THAT(Step(3)[0], Optional(IsEmpty()));
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

TEST_F(AssignerTest, LoadsWhatNobodyHasInPlaceOfAReplicaThatIsToMove) {
  // 0 is to move from the first shard to the second, which is full of 2; 3 is nowhere.
  shards_ = {{true, false, 20, {0, 1}}, {true, false, 20, {1, 2}}, {true, false, 20, {0, 2}}};
  plan_.experts = {{1, 3}, {0, 1}, {0, 2}};
  EXPECT_THAT(Step()[0], Optional(ElementsAre(1, 3)));
}

TEST_F(AssignerTest, LodgesWhatNobodyHasWhereThereIsRoomUntilItCanComeWhereItBelongs) {
  // The first shard's 0 is nowhere else, so that 2 must wait there, though there is room elsewhere.
  shards_ = {{true, false, 20, {0, 1}}, {true, false, 20, {}}};
  plan_.experts = {{1, 2}, {0}};
  EXPECT_THAT(Step(), ElementsAre(Optional(ElementsAre(0, 1)), Optional(ElementsAre(0, 2))));
  for (int i = 0; i < 10; ++i) Step();
  EXPECT_THAT(shards_[0].announced, ElementsAre(1, 2));
  EXPECT_THAT(shards_[1].announced, ElementsAre(0));
}

TEST_F(AssignerTest, FullShardsExchangeWhatOthersHaveAsWell) {
  shards_ = {{true, false, 20, {0, 2}}, {true, false, 20, {1, 3}}, {true, false, 40, {0, 1, 2, 3}}};
  plan_.experts = {{1, 2}, {0, 3}, {0, 1, 2, 3}};
  for (int i = 0; i < 10; ++i) Step();
  EXPECT_THAT(shards_[0].announced, ElementsAre(1, 2));
  EXPECT_THAT(shards_[1].announced, ElementsAre(0, 3));
}

// Clusters with hardly a slot to spare, whose shards die and come back empty: what is held
// somewhere stays held, what is not is held again soon, and replicas get to where they belong.
TEST(AssignerPropertyTest, TightClustersRecover) {
  for (int seed = 0; seed < 300; ++seed) {
    std::mt19937 random(seed);
    const auto draw = [&random](int least, int most) {
      return std::uniform_int_distribution<int>(least, most)(random);
    };
    PlannerInput input;
    input.n_layers = draw(1, 3);
    input.n_experts = draw(2, 8);
    input.expert_bytes = 10;
    PlannerOptions options;
    options.min_replicas = draw(1, 2);
    const int n_items = input.n_layers * input.n_experts, n_shards = draw(2, 6);
    const int slots = (n_items * options.min_replicas + n_shards - 1) / n_shards + draw(0, 1);
    input.shards.resize(n_shards);
    std::vector<ShardView> shards(n_shards);
    for (int i = 0; i < n_shards; ++i) {
      input.shards[i].name = std::to_string(i);
      input.shards[i].capacity_bytes = shards[i].capacity_bytes = 10 * slots;
      shards[i].ready = true;
    }
    Assigner assigner(n_items, 10, kGrace);
    absl::Time now = absl::UnixEpoch();
    const auto n_held = [&](uint32_t item) {
      return std::count_if(shards.begin(), shards.end(), [item](const ShardView& shard) {
        return std::binary_search(shard.announced.begin(), shard.announced.end(), item);
      });
    };
    bool settled = false;
    const auto step = [&] {
      const Plan plan = *MakePlan(input, options);
      const auto next = assigner.Next(shards, plan, now += absl::Seconds(1));
      std::vector<bool> was_held(n_items);
      for (int item = 0; item < n_items; ++item) was_held[item] = n_held(item) > 0;
      settled = true;
      for (int i = 0; i < n_shards; ++i) {
        input.shards[i].held = plan.experts[i];
        shards[i].announced = *next[i];
        EXPECT_LE(shards[i].announced.size(), slots);
        settled &= shards[i].announced == plan.experts[i];
      }
      for (int item = 0; item < n_items; ++item) EXPECT_TRUE(!was_held[item] || n_held(item) > 0);
    };
    for (int death = 0; death < 4; ++death) {
      for (int n = draw(1, 2); n > 0; --n) {
        const int dead = draw(0, n_shards - 1);
        shards[dead].announced.clear();
        input.shards[dead].held.clear();
      }
      input.load.resize(n_items);
      for (double& load : input.load) load = draw(1, 20);
      for (int i = 0; i < 10; ++i) step();
      for (int item = 0; item < n_items; ++item) EXPECT_GT(n_held(item), 0) << seed;
      for (int i = 0; i < 150 && !settled; ++i) step();
      EXPECT_TRUE(settled || options.min_replicas == 1) << seed;
    }
  }
}

}  // namespace
}  // namespace gatefold
