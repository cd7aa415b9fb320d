#include "gatefold/base/utf8.h"

#include "gtest/gtest.h"

namespace gatefold {
namespace {

std::string Lossy(absl::string_view bytes) {
  std::string text;
  AppendLossy(bytes, &text);
  return text;
}

TEST(Utf8, FindsTheFirstByteThatDoesNotBelong) {
  EXPECT_EQ(FindInvalidUtf8(""), kValidUtf8);
  EXPECT_EQ(FindInvalidUtf8("plain text, long enough for words"), kValidUtf8);
  EXPECT_EQ(FindInvalidUtf8("añ漢\U0001F999\xF4\x8F\xBF\xBF"), kValidUtf8);
  EXPECT_EQ(FindInvalidUtf8("ab\xC3"), 2);
  EXPECT_EQ(FindInvalidUtf8("abcdefgh\x80"), 8);
  EXPECT_EQ(FindInvalidUtf8("a\xC0\xAF"), 1) << "overlong";
  EXPECT_EQ(FindInvalidUtf8("a\xE0\x80\xAF"), 1) << "overlong";
  EXPECT_EQ(FindInvalidUtf8("a\xED\xA0\x80"), 1) << "surrogate";
  EXPECT_EQ(FindInvalidUtf8("a\xF4\x90\x80\x80"), 1) << "past U+10FFFF";
}

TEST(Utf8, ReplacesWhatIsNotValidByteByByte) {
  EXPECT_EQ(ValidUtf8(""), "");
  EXPECT_EQ(ValidUtf8("añ漢\U0001F999"), "añ漢\U0001F999");
  EXPECT_EQ(ValidUtf8("\x80 a\xC3 b\xFF"), "? a? b?");
  EXPECT_EQ(ValidUtf8("\xED\xA0\x80ñ"), "???ñ") << "surrogate";
  EXPECT_EQ(ValidUtf8("abcdefgh\xE6\xBC"), "abcdefgh??") << "cut";
  EXPECT_EQ(ValidUtf8("\xE6\xE6\xBC\xA2"), "?漢") << "one begins where another breaks";
}

TEST(Utf8, RoundTripsEveryCodePoint) {
  for (char32_t c = 0; c < 0x110000; ++c) {
    if (c >= 0xD800 && c < 0xE000) continue;
    std::string text;
    AppendUtf8(c, &text);
    size_t position = 0;
    ASSERT_EQ(FindInvalidUtf8(text), kValidUtf8) << static_cast<uint32_t>(c);
    ASSERT_EQ(NextCodePoint(text, &position), c);
    ASSERT_EQ(position, text.size());
    ASSERT_EQ(PreviousBoundary(text, text.size()), 0);
  }
}

TEST(Utf8, ReplacesEveryMaximalBrokenPart) {
  EXPECT_EQ(Lossy("a\xE4\xBD"
                  "b"),
            "a\uFFFDb");
  EXPECT_EQ(Lossy("\xE4\xBD\xA0"), "你");
  EXPECT_EQ(Lossy("\xFF\xFE"), "\uFFFD\uFFFD");
  EXPECT_EQ(Lossy("\xED\xA0\x80"), "\uFFFD\uFFFD\uFFFD");
  EXPECT_EQ(Lossy("\xF0\x9F\xA6\xF0\x9F\xA6\x99"), "\uFFFD\U0001F999");
  EXPECT_EQ(Lossy("x\xF0\x9F"), "x\uFFFD");
}

TEST(Utf8, KnowsWhetherTheEndIsACharacter) {
  EXPECT_TRUE(EndsInCodePoint("\xFFé"));
  EXPECT_FALSE(EndsInCodePoint(""));
  EXPECT_FALSE(EndsInCodePoint("a\xC3"));
  EXPECT_FALSE(EndsInCodePoint("a\x80"));
  EXPECT_FALSE(EndsInCodePoint("a\uFFFD"));
  EXPECT_EQ(IncompleteTail("a\xF0\x9F\xA6"), 3);
  EXPECT_EQ(IncompleteTail("a\xF0\x9F\xA6\x99"), 0);
  EXPECT_EQ(IncompleteTail("a\xFF"), 0);
  EXPECT_EQ(IncompleteTail("\xE4"), 1);
}

}  // namespace
}  // namespace gatefold
