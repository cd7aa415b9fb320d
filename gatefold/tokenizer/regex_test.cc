#include "gatefold/tokenizer/regex.h"

#include <random>

#include "gatefold/base/utf8.h"
#include "gatefold/tokenizer/known_patterns.h"
#include "gmock/gmock.h"
#include "gtest/gtest.h"

namespace gatefold {
namespace {

using ::testing::ElementsAre;
using ::testing::HasSubstr;

std::vector<std::string> Cut(absl::string_view text, const std::vector<Span>& spans) {
  std::vector<std::string> pieces;
  for (const Span& span : spans) {
    pieces.emplace_back(text.substr(span.begin, span.end - span.begin));
  }
  return pieces;
}

std::vector<std::string> Matches(absl::string_view pattern, absl::string_view text) {
  const auto regex = Regex::Compile(pattern);
  if (!regex.ok()) return {regex.status().ToString()};
  RegexScratch scratch;
  std::vector<Span> spans;
  const absl::Status status = (*regex)->FindAll(text, &scratch, &spans);
  if (!status.ok()) return {status.ToString()};
  return Cut(text, spans);
}

TEST(Regex, TakesWhiteSpaceForWhatUnicodeSays) {
  EXPECT_THAT(Matches("\\s+", "a\u0085b\u3000c\u180Ed"), ElementsAre("\u0085", "\u3000"));
  EXPECT_THAT(Matches("[^\\s]+", "a\u180Eb c"), ElementsAre("a\u180Eb", "c"));
}

TEST(Regex, KnowsLettersThatAreYoungerThanTheEngine) {
  EXPECT_THAT(Matches("\\p{L}+", "\U00014160a."), ElementsAre("\U00014160a"));
  EXPECT_THAT(Matches("[^\\p{L}]+", "\U00014160."), ElementsAre("."));
  EXPECT_THAT(Matches("\\P{L}+", "\U00014160."), ElementsAre("."));
  EXPECT_THAT(Matches("\\p{Lu}", "\u1C89\u1C8A"), ElementsAre("\u1C89"));
}

TEST(Regex, TakesAScriptForTheCharactersThatAreItsAlone) {
  EXPECT_THAT(Matches("\\p{Han}+", "漢字、仮名。"), ElementsAre("漢字", "仮名"));
  EXPECT_THAT(Matches("[^\\P{Hiragana}a]+", "あー、a"), ElementsAre("あ"));
  EXPECT_THAT(Matches("\\p{^Arabic}", "ب،"), ElementsAre("،"));
  EXPECT_THAT(Matches("[\\p{han}x]+", "漢、x"), ElementsAre("漢", "x"));
}

TEST(Regex, ReadsNamesInBracketsWithAllOfUnicode) {
  EXPECT_THAT(Matches("[[:punct:]]+", "a▁£b_+c。"), ElementsAre("▁£", "_+", "。"));
  EXPECT_THAT(Matches("[^[:punct:]a]+", "a▁b"), ElementsAre("b"));
  EXPECT_THAT(Matches("[[:alpha:]]+", "\u0E34\u0E48x7"), ElementsAre("\u0E34", "x"));
  EXPECT_THAT(Matches("[[:word:]]+", "a½b"), ElementsAre("a", "b"));
  EXPECT_THAT(Matches("[[:upper:][:digit:]]+", "ⅧⒶ7a"), ElementsAre("ⅧⒶ7"));
  EXPECT_THAT(Matches("[[:space:]]", "\u180E "), ElementsAre(" "));
  EXPECT_THAT(Matches("[[:xdigit:]]+", "afg"), ElementsAre("af"));
}

TEST(Regex, TakesVForTheVerticalTabulator) {
  EXPECT_THAT(Matches("[\\v]|\\v", "\n\v\f"), ElementsAre("\v"));
}

TEST(Regex, FoldsTheLongS) {
  EXPECT_THAT(Matches("(?i:'s|'t)", "it'ſ 'S 'x"), ElementsAre("'ſ", "'S"));
}

TEST(Regex, TakesDollarForTheEndOfAnyLine) {
  EXPECT_THAT(Matches(" +$", "a  \nb c "), ElementsAre("  ", " "));
}

TEST(Regex, FindsEmptyMatchesOnceEach) {
  EXPECT_THAT(Matches("(?=b)", "abb"), ElementsAre("", ""));
  EXPECT_THAT(Matches("a*", "baac"), ElementsAre("", "aa", ""));
}

TEST(Regex, StopsPatternsThatBacktrackWithoutEnd) {
  EXPECT_THAT(Matches("(?:a?){40}a{40}(?:a|aa)+$", std::string(60, 'a') + "b"),
              ElementsAre(HasSubstr("too many steps")));
}

TEST(Regex, RefusesWhatTheEnginesReadDifferently) {
  for (const char* pattern :
       {"[a&&[^b]]", "a{2}+", "[a[bc]]", "(?m:.)", "\\X", "(*LIMIT_MATCH=1)a", "[\\W]",
        "[[:^alpha:]]", "[[:graph:]]", "\\p{NoSuchThing}", "(", "\\", "\\u12"}) {
    EXPECT_FALSE(Regex::Compile(pattern).ok()) << pattern;
  }
  EXPECT_FALSE(Regex::Compile(std::string(70000, 'a')).ok());
  EXPECT_FALSE(Regex::Compile(std::string(2000, '(') + std::string(2000, ')')).ok());
}

// The matchers made by hand against the engine, on texts that mix all kinds of characters.
TEST(KnownPatterns, MatchWhatTheEngineMatches) {
  const std::vector<std::string> parts = {
      "a",          "Z",      "é",      "漢",  "ß",     "ſ",      "\u212A", "0",
      "7",          "½",      "Ⅷ",      " ",   "  ",    "\n",     "\r\n",   "\t",
      "\u00A0",     "\u3000", "\u0085", "'",   "'s",    "'LL",    "'Ve",    "'ſ",
      "'x",         ".",      "!?",     "_",   "🦙",  "\u0301", "\u200D", "\uFFFD",
      "\U00014160", "don't",  " the",   "123", "\u180E"};
  const std::vector<absl::string_view> patterns = {kGpt2Pattern, kLlama3Pattern, kQwen2Pattern,
                                                   "[\\r\\n]", "\\s+$"};
  std::mt19937 random(7);
  RegexScratch scratch;
  for (const absl::string_view pattern : patterns) {
    const KnownPattern known = FindKnownPattern(pattern);
    ASSERT_NE(known, nullptr) << pattern;
    const auto regex = Regex::Compile(pattern);
    ASSERT_TRUE(regex.ok()) << regex.status();
    for (int i = 0; i < 3000; ++i) {
      std::string text;
      for (int n = random() % 12; n > 0; --n) text += parts[random() % parts.size()];
      std::vector<Span> expected, spans;
      ASSERT_TRUE((*regex)->FindAll(text, &scratch, &expected).ok());
      known(text, &spans);
      ASSERT_EQ(Cut(text, spans), Cut(text, expected)) << pattern << " on " << text;
    }
  }
}

TEST(KnownPatterns, AreOnlyTheExactOnes) {
  EXPECT_EQ(FindKnownPattern("\\s+"), nullptr);
  EXPECT_EQ(FindKnownPattern(std::string(kGpt2Pattern) + "|x"), nullptr);
}

}  // namespace
}  // namespace gatefold
