#include "expert-service/expert_selection.h"

#include <string>

#include "gmock/gmock.h"
#include "gtest/gtest.h"

namespace gatefold {
namespace {

using testing::ElementsAre;

TEST(ExpertSelectionTest, PartsCoverEverythingOnce) {
  std::vector<ExpertId> all;
  for (const char* part : {"0/3", "1/3", "2/3"}) {
    auto selected = ParseExpertSelection(part, 2, 8);
    ASSERT_TRUE(selected.ok()) << selected.status();
    all.insert(all.end(), selected->begin(), selected->end());
  }
  std::sort(all.begin(), all.end());
  EXPECT_EQ(all, *ParseExpertSelection("all", 2, 8));
  EXPECT_EQ(all.size(), 16u);
}

TEST(ExpertSelectionTest, APartOfVeryManyIsOneExpertOfEachLayer) {
  EXPECT_THAT(*ParseExpertSelection("1/2147483647", 2, 8),
              ElementsAre(ExpertId{0, 1}, ExpertId{1, 1}));
}

TEST(ExpertSelectionTest, ListsNameLayersAndRanges) {
  EXPECT_THAT(*ParseExpertSelection("1:2-3,0:7,1:3", 2, 8),
              ElementsAre(ExpertId{0, 7}, ExpertId{1, 2}, ExpertId{1, 3}));
  EXPECT_THAT(*ParseExpertSelection("*:5", 2, 8), ElementsAre(ExpertId{0, 5}, ExpertId{1, 5}));
  EXPECT_THAT(*ParseExpertSelection("none", 2, 8), ElementsAre());
}

TEST(ExpertSelectionTest, RefusesWhatIsNotThere) {
  for (const char* text :
       {"", "3/3", "-1/2", "1/0", "x", "0", "0:8", "2:0", "0:3-1", "0:3-", "0:a", "a/b"}) {
    EXPECT_EQ(ParseExpertSelection(text, 2, 8).status().code(), absl::StatusCode::kInvalidArgument)
        << text;
  }
}

}  // namespace
}  // namespace gatefold
