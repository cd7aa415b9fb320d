#include "router-service/dispatch/placement_order.h"

#include "gmock/gmock.h"
#include "gtest/gtest.h"

namespace gatefold {
namespace {

using testing::ElementsAre;
using testing::IsEmpty;

// Services 0, 1 and 2 with incarnations 10, 11 and 12.
std::vector<AttentionPlace> Places(const std::vector<int>& n_free_blocks) {
  std::vector<AttentionPlace> places;
  for (int n : n_free_blocks) {
    const int index = static_cast<int>(places.size());
    places.push_back({index, uint64_t{10} + index, n, 1000});
  }
  return places;
}

TEST(PlacementOrderTest, PrefersRoomForPromptsThatNobodyKnows) {
  PrefixAffinity affinity;
  EXPECT_THAT(OrderPlaces(Places({5, 9, 7}), 100, {}, &affinity), ElementsAre(1, 2, 0));
  EXPECT_THAT(OrderPlaces(Places({5, 9, 7}), 100, {1, 2, 3}, &affinity), ElementsAre(1, 2, 0));
  EXPECT_THAT(OrderPlaces({}, 100, {1}, &affinity), IsEmpty());
}

TEST(PlacementOrderTest, PrefersTheLongestKnownBeginning) {
  PrefixAffinity affinity;
  affinity.Remember({1, 2, 3}, 12);
  affinity.Remember({1}, 10);
  EXPECT_THAT(OrderPlaces(Places({8, 9, 7}), 100, {1, 4}, &affinity), ElementsAre(0, 1, 2));
  affinity.Remember({1, 2, 3}, 12);
  EXPECT_THAT(OrderPlaces(Places({8, 9, 7}), 100, {1, 2}, &affinity), ElementsAre(2, 1, 0));
}

TEST(PlacementOrderTest, SpreadsAPrefixOnceAnotherHasTwiceTheRoom) {
  PrefixAffinity affinity;
  affinity.Remember({1, 2, 3}, 10);
  EXPECT_THAT(OrderPlaces(Places({50, 100}), 100, {1, 2, 3}, &affinity), ElementsAre(0, 1));
  EXPECT_THAT(OrderPlaces(Places({49, 100}), 100, {1, 2, 3}, &affinity), ElementsAre(1, 0));
}

TEST(PlacementOrderTest, ForgetsAServiceThatRestarted) {
  PrefixAffinity affinity;
  affinity.Remember({1, 2, 3}, 99);
  EXPECT_THAT(OrderPlaces(Places({5, 9}), 100, {1, 2, 3}, &affinity), ElementsAre(1, 0));
}

TEST(PlacementOrderTest, LeavesOutWhereTheSequenceCannotFit) {
  PrefixAffinity affinity;
  std::vector<AttentionPlace> places = Places({5, 9, 7});
  places[1].max_sequence_tokens = 99;
  places[2].max_sequence_tokens = 0;  // an older service
  EXPECT_THAT(OrderPlaces(places, 100, {}, &affinity), ElementsAre(2, 0));
}

}  // namespace
}  // namespace gatefold
