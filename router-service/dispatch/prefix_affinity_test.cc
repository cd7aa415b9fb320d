#include "router-service/dispatch/prefix_affinity.h"

#include <algorithm>
#include <list>
#include <numeric>
#include <random>
#include <utility>
#include <vector>

#include "gtest/gtest.h"

namespace gatefold {
namespace {

constexpr int kBlock = PrefixAffinity::kBlockTokens;

std::vector<uint64_t> Names(int first_token, int n_tokens, uint64_t domain = 1) {
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

// Against a list that is searched.
TEST(PrefixAffinityTest, ForgetsAsAListWould) {
  constexpr size_t kCapacity = 50;
  PrefixAffinity affinity(kCapacity);
  std::list<std::pair<uint64_t, uint64_t>> list;  // names and incarnations, newest last
  std::mt19937 random(5);
  for (int step = 0; step < 5000; ++step) {
    std::vector<uint64_t> names(1 + random() % 5);
    for (uint64_t& name : names) name = random() % 120;
    const uint64_t incarnation = random() % 3;
    affinity.Remember(names, incarnation);
    for (auto name = names.rbegin(); name != names.rend(); ++name) {
      list.remove_if([&](const auto& known) { return known.first == *name; });
      list.emplace_back(*name, incarnation);
    }
    while (list.size() > kCapacity) list.pop_front();
    ASSERT_EQ(affinity.size(), list.size());
    const uint64_t name = random() % 120;
    const auto known = std::find_if(list.begin(), list.end(),
                                    [&](const auto& entry) { return entry.first == name; });
    for (uint64_t i = 0; i < 3; ++i) {
      ASSERT_EQ(affinity.Known({name}, i), known != list.end() && known->second == i) << step;
    }
  }
}

}  // namespace
}  // namespace gatefold
