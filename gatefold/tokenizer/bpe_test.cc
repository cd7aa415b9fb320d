#include "gatefold/tokenizer/bpe.h"

#include <map>
#include <random>

#include "absl/strings/str_cat.h"
#include "gmock/gmock.h"
#include "gtest/gtest.h"

namespace gatefold {
namespace {

using ::testing::ElementsAre;

std::vector<int32_t> Encode(const Bpe& bpe, absl::string_view piece) {
  Bpe::Scratch scratch;
  std::vector<int32_t> ids;
  bpe.Encode(piece, &scratch, &ids);
  return ids;
}

// Characters first, then one token for each merge.
struct Model {
  std::vector<std::string> texts;
  std::vector<std::pair<std::string, std::string>> merges;

  BpeTable Table() const {
    BpeTable table;
    table.texts.resize(texts.size() + merges.size());
    int32_t id = 0;
    for (const std::string& text : texts) EXPECT_TRUE(table.Add(id++, text).ok());
    for (const auto& [left, right] : merges) {
      const std::string merged = left + right;
      if (!table.ids.contains(merged)) {
        EXPECT_TRUE(table.Add(id++, merged).ok());
      }
      table.merges.push_back({table.ids[left], table.ids[right], table.ids[merged],
                              static_cast<int32_t>(table.merges.size())});
    }
    return table;
  }
};

// What the definition says, step by step.
std::vector<int32_t> EncodeSlowly(const BpeTable& table, absl::string_view text) {
  std::vector<int32_t> ids;
  for (const char c : text) ids.push_back(table.ids.at(std::string(1, c)));
  for (;;) {
    const MergeRule* best = nullptr;
    size_t place = 0;
    for (size_t i = 0; i + 1 < ids.size(); ++i) {
      for (const MergeRule& rule : table.merges) {
        if (rule.left != ids[i] || rule.right != ids[i + 1]) continue;
        if (best == nullptr || rule.rank < best->rank) {
          best = &rule;
          place = i;
        }
      }
    }
    if (best == nullptr) return ids;
    ids[place] = best->id;
    ids.erase(ids.begin() + place + 1);
  }
}

TEST(Bpe, MergesTheLowestRankFirstAndTheLeftmostOfEqualOnes) {
  const Bpe bpe(Model{{"a", "b"}, {{"b", "a"}, {"a", "b"}, {"a", "a"}}}.Table());
  EXPECT_THAT(Encode(bpe, "aba"), ElementsAre(0, 2));
  EXPECT_THAT(Encode(bpe, "aaa"), ElementsAre(4, 0));
}

TEST(Bpe, MergesShortAndLongPiecesAsTheDefinitionSays) {
  const Model model{{"a", "b", "c"},
                    {{"a", "b"},
                     {"b", "c"},
                     {"ab", "c"},
                     {"c", "a"},
                     {"ab", "ab"},
                     {"a", "a"},
                     {"abab", "c"},
                     {"aa", "aa"},
                     {"b", "b"},
                     {"ca", "bb"}}};
  const BpeTable table = model.Table();
  const Bpe bpe(model.Table());
  std::mt19937 random(3);
  for (int i = 0; i < 2000; ++i) {
    std::string text;
    for (int n = 1 + random() % (i % 4 == 0 ? 200 : 20); n > 0; --n) {
      text += static_cast<char>('a' + random() % 3);
    }
    ASSERT_EQ(Encode(bpe, text), EncodeSlowly(table, text)) << text;
    ASSERT_EQ(Encode(bpe, text), EncodeSlowly(table, text)) << "again " << text;
  }
}

TEST(Bpe, KeepsAPieceThatIsATokenOnlyIfMergesAreIgnored) {
  BpeTable table = Model{{"a", "b", "ab"}, {}}.Table();
  EXPECT_THAT(Encode(Bpe(table), "ab"), ElementsAre(0, 1)) << "no merge makes it";
  table.ignore_merges = true;
  const Bpe bpe(table);
  EXPECT_THAT(Encode(bpe, "ab"), ElementsAre(2));
  EXPECT_THAT(Encode(bpe, "aba"), ElementsAre(0, 1, 0));
}

TEST(Bpe, CutsAtMetaspaceWithoutChangingTheTokens) {
  const Model words{{"▁", "a", "b"}, {{"▁", "a"}, {"▁", "▁"}, {"a", "b"}, {"▁a", "b"}}};
  Model crossing = words;
  crossing.merges.push_back({"b", "▁"});  // now no text may be cut before ▁
  const Bpe fast(words.Table()), slow(crossing.Table());
  EXPECT_THAT(Encode(fast, "▁ab▁▁ab"), ElementsAre(6, 0, 6));
  EXPECT_THAT(Encode(slow, "▁ab▁▁ab"), ElementsAre(6, 0, 6));
  EXPECT_THAT(Encode(slow, "bb▁"), ElementsAre(2, 7));
}

TEST(Bpe, FallsBackToBytesThenToUnk) {
  BpeTable table = Model{{"a", "<unk>", "é"}, {}}.Table();
  table.unk_id = 1;
  EXPECT_THAT(Encode(Bpe(table), "axyaé"), ElementsAre(0, 1, 1, 0, 2));
  table.fuse_unk = true;
  EXPECT_THAT(Encode(Bpe(table), "axyaé"), ElementsAre(0, 1, 0, 2));
  table.byte_ids.assign(256, kNoToken);
  table.byte_ids['x'] = 77;
  EXPECT_THAT(Encode(Bpe(table), "axy"), ElementsAre(0, 77, 1));
  table.byte_ids.clear();
  table.unk_id = kNoToken;
  EXPECT_THAT(Encode(Bpe(table), "axy"), ElementsAre(0)) << "dropped";
}

TEST(Bpe, RanksTokensWhereTheFileRanksNoPairs) {
  // "xy" is a token though neither x nor y is; "ab" is better than "bc".
  BpeTable table;
  table.texts.resize(6);
  const std::vector<std::pair<std::string, int>> tokens = {{"a", 9},  {"b", 9},  {"c", 9},
                                                           {"bc", 1}, {"ab", 0}, {"xy", 2}};
  std::vector<int32_t> ranks;
  for (const auto& [text, rank] : tokens) {
    ASSERT_TRUE(table.Add(static_cast<int32_t>(ranks.size()), text).ok());
    ranks.push_back(rank);
  }
  table.unknown_last = true;
  table.unk_id = 100;
  table.DeriveMerges(ranks);
  const Bpe bpe(std::move(table));
  EXPECT_THAT(Encode(bpe, "abc"), ElementsAre(4, 2));
  EXPECT_THAT(Encode(bpe, "xybc"), ElementsAre(5, 3));
  EXPECT_THAT(Encode(bpe, "xbq"), ElementsAre(100, 1, 100));
}

TEST(BpeTable, RefusesIdsAndTextsThatAreTaken) {
  BpeTable table;
  table.texts.resize(2);
  ASSERT_TRUE(table.Add(0, "a").ok());
  EXPECT_FALSE(table.Add(0, "b").ok());
  EXPECT_FALSE(table.Add(1, "a").ok());
}

}  // namespace
}  // namespace gatefold
