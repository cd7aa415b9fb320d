#include "router-service/dispatch/prefix_affinity.h"

#include <numeric>
#include <vector>

#include "gtest/gtest.h"

namespace gatefold {
namespace {

constexpr int kBlock = PrefixAffinity::kBlockTokens;

std::vector<uint64_t> Names(int first_token, int n_tokens, uint32_t domain = 1) {
  std::vector<int32_t> tokens(n_tokens);
  std::iota(tokens.begin(), tokens.end(), first_token);
  return PrefixAffinity::Names(domain, tokens);
}

TEST(PrefixAffinityTest, NamesFullBlocksByAllThatComesBefore) {
  const std::vector<uint64_t> names = Names(0, 3 * kBlock + 5);
  ASSERT_EQ(names.size(), 3u);
  EXPECT_EQ(Names(0, 2 * kBlock), std::vector<uint64_t>(names.begin(), names.begin() + 2));
  EXPECT_NE(Names(kBlock, kBlock)[0], names[1]);
  EXPECT_NE(Names(0, kBlock, 2)[0], names[0]);
}

TEST(PrefixAffinityTest, KnowsTheLongestCommonBeginning) {
  PrefixAffinity affinity;
  affinity.Remember(Names(0, 4 * kBlock), 7);
  std::vector<int32_t> tokens(4 * kBlock);
  std::iota(tokens.begin(), tokens.end(), 0);
  tokens[2 * kBlock] = -1;
  EXPECT_EQ(affinity.Known(PrefixAffinity::Names(1, tokens), 7), 2);
  EXPECT_EQ(affinity.Known(PrefixAffinity::Names(1, tokens), 8), 0);
}

TEST(PrefixAffinityTest, TheLastToComputeItIsRemembered) {
  PrefixAffinity affinity;
  affinity.Remember(Names(0, 2 * kBlock), 7);
  affinity.Remember(Names(0, kBlock), 8);
  EXPECT_EQ(affinity.Known(Names(0, 2 * kBlock), 8), 1);
  EXPECT_EQ(affinity.Known(Names(0, 2 * kBlock), 7), 0);
}

TEST(PrefixAffinityTest, IsBoundedAndForgetsEndsBeforeBeginnings) {
  PrefixAffinity affinity(10);
  for (int i = 0; i < 50; ++i) affinity.Remember(Names(1000 * i, 4 * kBlock), 7);
  EXPECT_EQ(affinity.size(), 10u);
  EXPECT_EQ(affinity.Known(Names(49000, 4 * kBlock), 7), 4);
  EXPECT_EQ(affinity.Known(Names(47000, 4 * kBlock), 7), 2);
  affinity.Remember(Names(0, 100 * kBlock), 7);
  EXPECT_EQ(affinity.Known(Names(0, 100 * kBlock), 7), 10);
}

}  // namespace
}  // namespace gatefold
