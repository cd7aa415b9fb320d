#include "router-service/gateway/paging.h"

#include "gtest/gtest.h"

namespace gatefold {
namespace {

TEST(FindPageTest, WalksTheWholeList) {
  std::string token;
  int n_seen = 0, n_pages = 0;
  do {
    const Page page = *FindPage(250, 0, token);
    EXPECT_EQ(page.begin, n_seen);
    n_seen = page.end;
    token = page.next_page_token;
    ++n_pages;
  } while (!token.empty());
  EXPECT_EQ(n_seen, 250);
  EXPECT_EQ(n_pages, 3);
}

TEST(FindPageTest, BoundsThePageSize) {
  EXPECT_EQ(FindPage(5000, 4294967295u, "")->end, 1000);
  EXPECT_EQ(FindPage(5, 2, "4")->next_page_token, "");
  EXPECT_EQ(FindPage(0, 2, "")->end, 0);
}

TEST(FindPageTest, RefusesForeignTokensAndForgivesAShorterList) {
  for (const char* token : {"x", "-1", "1x", "99999999999999"}) {
    EXPECT_TRUE(absl::IsInvalidArgument(FindPage(5, 2, token).status())) << token;
  }
  const Page page = *FindPage(3, 2, "4");
  EXPECT_EQ(page.begin, page.end);
  EXPECT_EQ(page.next_page_token, "");
}

}  // namespace
}  // namespace gatefold
