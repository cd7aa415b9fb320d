#include "router-service/planner/holders.h"

#include "gmock/gmock.h"
#include "gtest/gtest.h"

namespace gatefold {
namespace {

using testing::ElementsAre;
using testing::IsEmpty;

HolderView Memory(std::vector<uint32_t> announced) {
  return {.usable = true, .sends_held = true, .announced = std::move(announced)};
}

std::vector<int> Shards(const std::vector<Holder>& holders) {
  std::vector<int> shards;
  for (const Holder& holder : holders) shards.push_back(holder.shard);
  return shards;
}

TEST(HoldersTest, NamesWhatEachCanGiveOfWhatIsMissing) {
  const std::vector<Holder> holders =
      FindHolders({Memory({}), Memory({1, 2, 3, 9}), Memory({3, 4})}, 0, {2, 3, 5});
  ASSERT_EQ(holders.size(), 2u);
  EXPECT_EQ(holders[0].shard, 1);
  EXPECT_THAT(holders[0].items, ElementsAre(2, 3));
  EXPECT_EQ(holders[1].shard, 2);
  EXPECT_THAT(holders[1].items, ElementsAre(3));
}

TEST(HoldersTest, WhoHasItInMemoryComesBeforeWhoWouldReadIt) {
  std::vector<HolderView> shards = {Memory({}), Memory({}), Memory({7})};
  shards[1].has_checkpoint = true;
  const std::vector<Holder> holders = FindHolders(shards, 0, {7, 8});
  ASSERT_EQ(holders.size(), 2u);
  EXPECT_EQ(holders[0].shard, 2);
  EXPECT_THAT(holders[0].items, ElementsAre(7));
  EXPECT_EQ(holders[1].shard, 1);
  EXPECT_THAT(holders[1].items, ElementsAre(7, 8));
}

TEST(HoldersTest, ACheckpointServesForWhatAMemoryCannotSend) {
  // A device with the files beside it: sends what it announces, but not from there.
  HolderView device = Memory({7});
  device.sends_held = false;
  device.has_checkpoint = true;
  const std::vector<Holder> holders = FindHolders({Memory({}), device}, 0, {7});
  ASSERT_EQ(holders.size(), 1u);
  EXPECT_THAT(holders[0].items, ElementsAre(7));
}

TEST(HoldersTest, PrefersThoseWhoStayThenTheIdlest) {
  std::vector<HolderView> shards = {Memory({}), Memory({1}), Memory({1}), Memory({1})};
  shards[1].draining = true;
  shards[2].busy = 0.9;
  EXPECT_THAT(Shards(FindHolders(shards, 0, {1})), ElementsAre(3, 2, 1));
}

TEST(HoldersTest, NeitherItselfNorWhoIsAwayNorWhoSendsNothing) {
  std::vector<HolderView> shards = {Memory({1}), Memory({1}), Memory({1})};
  shards[0].usable = false;
  shards[2].sends_held = false;
  EXPECT_THAT(FindHolders(shards, 1, {1}), IsEmpty());
}

TEST(HoldersTest, EqualsAreAskedByDifferentShardsInDifferentOrder) {
  const std::vector<HolderView> shards(4, Memory({1}));
  EXPECT_THAT(Shards(FindHolders(shards, 0, {1})), ElementsAre(1, 2, 3));
  EXPECT_THAT(Shards(FindHolders(shards, 2, {1})), ElementsAre(3, 0, 1));
}

TEST(HoldersTest, AFewAreEnough) {
  const std::vector<HolderView> shards(200, Memory({1, 2}));
  const std::vector<Holder> holders = FindHolders(shards, 0, {1, 2});
  EXPECT_EQ(holders.size(), static_cast<size_t>(kHoldersPerExpert));
}

}  // namespace
}  // namespace gatefold
