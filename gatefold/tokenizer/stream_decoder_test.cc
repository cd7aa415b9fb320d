#include "gatefold/tokenizer/stream_decoder.h"

#include <random>

#include "gatefold/tokenizer/test_tokenizers.h"
#include "gmock/gmock.h"
#include "gtest/gtest.h"

namespace gatefold {
namespace {

using testing::ByteLevelJson;
using ::testing::ElementsAre;
using testing::FromJson;
using testing::HelloSpmJson;

std::vector<std::string> Stream(const Tokenizer& tokenizer, const std::vector<int32_t>& ids) {
  StreamDecoder stream(&tokenizer, /*skip_special_tokens=*/false);
  std::vector<std::string> texts;
  for (const int32_t id : ids) texts.push_back(stream.Push(id));
  texts.push_back(stream.Finish());
  return texts;
}

class ByteStream : public ::testing::Test {
 protected:
  void SetUp() override {
    auto made = FromJson(ByteLevelJson({{"h", "e"}}));
    ASSERT_TRUE(made.ok()) << made.status();
    tokenizer_ = *std::move(made);
  }
  std::unique_ptr<Tokenizer> tokenizer_;
};

class PieceStream : public ::testing::Test {
 protected:
  void SetUp() override {
    auto made = FromJson(HelloSpmJson());
    ASSERT_TRUE(made.ok()) << made.status();
    tokenizer_ = *std::move(made);
  }
  std::unique_ptr<Tokenizer> tokenizer_;
};

TEST_F(ByteStream, HoldsBackUnfinishedCharacters) {
  EXPECT_THAT(Stream(*tokenizer_, {'a', 0xF0, 0x9F, 0xA6, 0x99, 256}),
              ElementsAre("a", "", "", "", "🦙", "he", ""));
}

TEST_F(ByteStream, HoldsBackReplacementCharactersUntilTextFollows) {
  EXPECT_THAT(Stream(*tokenizer_, {0xFF, 0xFE, 'a', 0xC3}),
              ElementsAre("", "", "\uFFFD\uFFFDa", "", "\uFFFD"));
}

TEST_F(ByteStream, DoesNotHoldEndlessGarbage) {
  StreamDecoder stream(tokenizer_.get(), false);
  std::string text;
  std::vector<int32_t> ids;
  size_t longest_silence = 0, silence = 0;
  for (int i = 0; i < 10000; ++i) {
    ids.push_back(i % 3 == 0 ? 0xE4 : 0xFF);
    const std::string piece = stream.Push(ids.back());
    silence = piece.empty() ? silence + 1 : 0;
    longest_silence = std::max(longest_silence, silence);
    text += piece;
  }
  EXPECT_LT(longest_silence, 2000);
  EXPECT_EQ(text + stream.Finish(), tokenizer_->Decode(ids, false));
}

TEST_F(ByteStream, JoinsToTheBatchDecodeWhateverTheBytes) {
  std::mt19937 random(1);
  for (int i = 0; i < 2000; ++i) {
    std::vector<int32_t> ids;
    for (int n = random() % 20; n > 0; --n) {
      ids.push_back(random() % 2 ? 0x80 + random() % 128 : random() % 257);
    }
    std::string joined;
    for (const std::string& text : Stream(*tokenizer_, ids)) {
      ASSERT_EQ(FindInvalidUtf8(text), kValidUtf8);
      joined += text;
    }
    ASSERT_EQ(joined, tokenizer_->Decode(ids, false));
  }
}

TEST_F(ByteStream, FinishesACharacterThatThePromptBegan) {
  const std::vector<int32_t> prompt = {'a', 0xE4, 0xBD};
  StreamDecoder stream(tokenizer_.get(), false, prompt);
  EXPECT_EQ(stream.Push(0xA0), "你");
  EXPECT_EQ(stream.Finish(), "");
}

TEST_F(ByteStream, SaysNothingOfACharacterThatThePromptBeganWhenNothingFollows) {
  const std::vector<int32_t> prompt = {'a', 0xE4, 0xBD};
  StreamDecoder silent(tokenizer_.get(), true, prompt);
  EXPECT_EQ(silent.Finish(), "");
  StreamDecoder stream(tokenizer_.get(), true, prompt);
  EXPECT_EQ(stream.Push(0xE4), "");
  EXPECT_EQ(stream.Finish(), "\uFFFD\uFFFD");
}

TEST_F(PieceStream, SaysNothingOfItWhenOnlyASpecialTokenFollows) {
  const std::vector<int32_t> prompt = {263, 3 + 0xE4, 3 + 0xBD};
  StreamDecoder stream(tokenizer_.get(), true, prompt);
  EXPECT_EQ(stream.Push(2), "");
  EXPECT_EQ(stream.Finish(), "");
}

TEST_F(PieceStream, StripsTheFirstSpaceOfTheSequenceOnly) {
  EXPECT_THAT(Stream(*tokenizer_, {268, 268, 259, 263}),
              ElementsAre("hello", " hello", " ", "o", ""));
  EXPECT_THAT(Stream(*tokenizer_, {259, 268}), ElementsAre("", " hello", ""));
}

TEST_F(PieceStream, KeepsTheSpaceAfterAPrompt) {
  const std::vector<int32_t> prompt = {1, 268};
  StreamDecoder stream(tokenizer_.get(), true, prompt);
  EXPECT_EQ(stream.Push(268), " hello");
}

TEST_F(PieceStream, ReplacesEveryByteOfARunThatIsNotUtf8) {
  EXPECT_THAT(Stream(*tokenizer_, {263, 3 + 0xE4, 3 + 0xBD, 263}),
              ElementsAre("o", "", "", "\uFFFD\uFFFDo", ""));
  EXPECT_THAT(Stream(*tokenizer_, {263, 3 + 0xE4, 3 + 0xBD, 3 + 0xA0, 263}),
              ElementsAre("o", "", "", "你", "o", ""));
}

TEST_F(PieceStream, SkipsSpecialTokensOnDemand) {
  StreamDecoder stream(tokenizer_.get(), /*skip_special_tokens=*/true);
  EXPECT_EQ(stream.Push(1), "");
  EXPECT_EQ(stream.Push(268), "hello");
  EXPECT_EQ(stream.Push(2), "");
  EXPECT_EQ(stream.Finish(), "");
}

}  // namespace
}  // namespace gatefold
