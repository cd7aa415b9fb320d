#include "router-service/gateway/candidate_text.h"

#include "gatefold/base/utf8.h"
#include "gtest/gtest.h"
#include "router-service/gateway/gateway_fakes.h"

namespace gatefold {
namespace {

// Pushes the ids; returns the joined text, which must be valid UTF-8 in every piece.
std::string Join(CandidateText* text, const std::vector<int32_t>& ids,
                 std::string* stop = nullptr) {
  std::string joined;
  const auto take = [&](CandidateText::Piece piece) {
    EXPECT_EQ(FindInvalidUtf8(piece.text), kValidUtf8);
    joined += piece.text;
    if (piece.matched_stop.has_value() && stop != nullptr) *stop = *piece.matched_stop;
  };
  for (const int32_t id : ids) take(text->Push(id));
  take(text->Finish());
  return joined;
}

TEST(CandidateTextTest, JoinedPiecesEqualTheWholeDecode) {
  const FakeCodec codec({"日本", "\xe8\xaa", "\x9e!", "x"});
  const std::vector<int32_t> ids = {260,  261,  262, FakeCodec::kEos, 'a', 0xf0, 0x9f,
                                    0x98, 0x80, 263};
  CandidateText text(&codec, {}, {}, 0);
  EXPECT_EQ(Join(&text, ids), codec.Decode(ids, true));
}

TEST(CandidateTextTest, StopsOnAStringAcrossTokensOfManyBytes) {
  const FakeCodec codec({"foo\n", "\nUs", "er: hi", "é"});
  CandidateText text(&codec, {}, {"\n\nUser:"}, 0);
  std::string stop;
  EXPECT_EQ(Join(&text, {263, 260, 261, 262}, &stop), "éfoo");
  EXPECT_EQ(stop, "\n\nUser:");
}

TEST(CandidateTextTest, ReplacesACharacterThatNeverBecameWhole) {
  const FakeCodec codec;
  CandidateText text(&codec, {}, {"zzz"}, 0);
  EXPECT_EQ(Join(&text, {'a', 'z', 'z', 0xe2, 0x82}), "azz\xef\xbf\xbd");
}

TEST(CandidateTextTest, LetsStopStringsPassBeforeTheMinimum) {
  const FakeCodec codec;
  CandidateText text(&codec, {}, {"b"}, 4);
  std::string stop;
  EXPECT_EQ(Join(&text, {'a', 'b', 'c', 'b', 'd'}, &stop), "abc");  // the fourth may stop
  EXPECT_EQ(stop, "b");
}

TEST(CandidateTextTest, FeedingTheSameTokensRestoresWhatIsHeldBack) {
  const FakeCodec codec;
  const std::string all = "one STO two STOP three";
  CandidateText whole(&codec, {}, {"STOP"}, 0);
  const std::string expected = Join(&whole, {all.begin(), all.end()});
  for (size_t cut = 0; cut < expected.size() + 3; ++cut) {
    CandidateText before(&codec, {}, {"STOP"}, 0), after(&codec, {}, {"STOP"}, 0);
    std::string seen;
    for (size_t i = 0; i < cut; ++i) {
      seen += before.Push(all[i]).text;
      after.Push(all[i]);
    }
    EXPECT_EQ(seen + Join(&after, {all.begin() + cut, all.end()}), expected) << "cut at " << cut;
  }
}

TEST(CandidateTextTest, HasNoTextWithoutATokenizer) {
  CandidateText text(nullptr, {}, {}, 0);
  EXPECT_EQ(Join(&text, {1, 2, 3}), "");
}

}  // namespace
}  // namespace gatefold
