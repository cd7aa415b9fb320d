// Normaliser, pre-tokeniser and added tokens, each by itself.

#include <chrono>

#include "gatefold/tokenizer/added_tokens.h"
#include "gatefold/tokenizer/normalizer.h"
#include "gatefold/tokenizer/pre_tokenizer.h"
#include "gmock/gmock.h"
#include "gtest/gtest.h"

namespace gatefold {
namespace {

using nlohmann::json;
using ::testing::ElementsAre;
using ::testing::HasSubstr;

std::string Normalized(const char* normalizer, std::string text) {
  const auto made = Normalizer::FromJson(json::parse(normalizer));
  if (!made.ok()) return made.status().ToString();
  RegexScratch scratch;
  const absl::Status status = made->Apply(&scratch, &text);
  return status.ok() ? text : status.ToString();
}

std::vector<std::string> Pieces(const char* pre_tokenizer, std::string text,
                                bool starts_input = true) {
  const auto made = PreTokenizer::FromJson(json::parse(pre_tokenizer));
  if (!made.ok()) return {made.status().ToString()};
  RegexScratch scratch;
  PieceList list{text, {{0, text.size()}}, starts_input};
  const absl::Status status = made->Apply(&scratch, &list);
  if (!status.ok()) return {status.ToString()};
  std::vector<std::string> pieces;
  for (const Span& span : list.pieces) {
    pieces.push_back(list.text.substr(span.begin, span.end - span.begin));
  }
  return pieces;
}

TEST(Normalizer, BringsTextIntoNormalForms) {
  EXPECT_EQ(Normalized(R"({"type":"NFC"})", "e\u0301 \u1112\u1161\u11AB"), "é 한");
  EXPECT_EQ(Normalized(R"({"type":"NFD"})", "é"), "e\u0301");
  EXPECT_EQ(Normalized(R"({"type":"NFKC"})", "ﬁ Ⅷ ①"), "fi VIII 1");
  EXPECT_EQ(Normalized(R"({"type":"NFC"})", "a\u0315\u0300"), "à\u0315") << "canonical order";
}

TEST(Normalizer, LeavesMarksThatTheReferenceDoesNotKnow) {
  EXPECT_EQ(Normalized(R"({"type":"NFC"})", "a\u0315\u0898\u0316"), "a\u0315\u0898\u0316");
}

TEST(Normalizer, TakesLongRunsOfMarksInStride) {
  std::string text = "a";
  for (int i = 0; i < 100000; ++i) text += "\u0301\u0316";
  const auto start = std::chrono::steady_clock::now();
  Normalized(R"({"type":"NFC"})", text);
  EXPECT_LT(std::chrono::steady_clock::now() - start, std::chrono::seconds(5));
}

TEST(Normalizer, RunsItsStepsInOrder) {
  EXPECT_EQ(Normalized(R"({"type":"Sequence","normalizers":[
      {"type":"Prepend","prepend":"▁"},
      {"type":"Replace","pattern":{"String":" "},"content":"▁"}]})",
                       " a b"),
            "▁▁a▁b");
  EXPECT_EQ(Normalized(R"({"type":"Prepend","prepend":"▁"})", ""), "");
  EXPECT_EQ(Normalized(R"({"type":"Replace","pattern":{"Regex":"\\d+"},"content":"#"})", "a12b3"),
            "a#b#");
  EXPECT_EQ(Normalized(R"({"type":"Lowercase"})", "ÀİZ"), "ài\u0307z");
  EXPECT_EQ(Normalized(R"({"type":"Strip","strip_left":true,"strip_right":false})", " \u3000a "),
            "a ");
}

TEST(Normalizer, RefusesWhatItDoesNotKnowByName) {
  EXPECT_THAT(Normalized(R"({"type":"Precompiled"})", ""), HasSubstr("Precompiled"));
  EXPECT_THAT(Normalized(R"({"type":"Sequence","normalizers":[{"type":"Nmt"}]})", ""),
              HasSubstr("normalizer[0]"));
  EXPECT_THAT(Normalized(R"({"type":"Replace","content":"x"})", ""), HasSubstr("pattern"));
}

TEST(Normalizer, DoesNotLetTextGrowWithoutEnd) {
  json steps = json::array();
  for (int i = 0; i < 40; ++i) {
    steps.push_back({{"type", "Replace"}, {"pattern", {{"String", "a"}}}, {"content", "aaaaaaaa"}});
  }
  const json normalizer = {{"type", "Sequence"}, {"normalizers", steps}};
  EXPECT_THAT(Normalized(normalizer.dump().c_str(), "a"), HasSubstr("RESOURCE_EXHAUSTED"));
}

TEST(PreTokenizer, SplitsAsEachBehaviourSays) {
  const auto split = [](const std::string& behavior, bool invert, const std::string& text) {
    const json pre = {{"type", "Split"},
                      {"pattern", {{"String", "-"}}},
                      {"behavior", behavior},
                      {"invert", invert}};
    return Pieces(pre.dump().c_str(), text);
  };
  EXPECT_THAT(split("Isolated", false, "a--b"), ElementsAre("a", "-", "-", "b"));
  EXPECT_THAT(split("Removed", false, "a--b"), ElementsAre("a", "b"));
  EXPECT_THAT(split("Removed", true, "a--b"), ElementsAre("-", "-"));
  EXPECT_THAT(split("MergedWithPrevious", false, "a--b"), ElementsAre("a-", "-", "b"));
  EXPECT_THAT(split("MergedWithNext", false, "a--b"), ElementsAre("a", "-", "-b"));
  EXPECT_THAT(split("Contiguous", false, "a--b"), ElementsAre("a", "--", "b"));
}

TEST(PreTokenizer, MarksWordsWithMetaspace) {
  const auto pieces = [](const std::string& scheme, bool split, const std::string& text,
                         bool starts_input) {
    const json pre = {
        {"type", "Metaspace"}, {"replacement", "▁"}, {"prepend_scheme", scheme}, {"split", split}};
    return Pieces(pre.dump().c_str(), text, starts_input);
  };
  EXPECT_THAT(pieces("always", true, "a b", false), ElementsAre("▁a", "▁b"));
  EXPECT_THAT(pieces("first", false, "a b", true), ElementsAre("▁a▁b"));
  EXPECT_THAT(pieces("first", false, "a b", false), ElementsAre("a▁b"));
  EXPECT_THAT(pieces("first", false, " a", true), ElementsAre("▁a")) << "has its ▁ already";
  EXPECT_THAT(pieces("never", true, "a  b", true), ElementsAre("a", "▁", "▁b"));
}

TEST(PreTokenizer, SplitsDigitsAndWords) {
  EXPECT_THAT(Pieces(R"({"type":"Digits","individual_digits":true})", "a12½"),
              ElementsAre("a", "1", "2", "½"));
  EXPECT_THAT(Pieces(R"({"type":"Digits","individual_digits":false})", "a12b"),
              ElementsAre("a", "12", "b"));
  EXPECT_THAT(Pieces(R"({"type":"Whitespace"})", "Hi, you\t!?"),
              ElementsAre("Hi", ",", "you", "!?"));
  EXPECT_THAT(Pieces(R"({"type":"Sequence","pretokenizers":[
      {"type":"Split","pattern":{"Regex":"[a-z]+"},"behavior":"Isolated","invert":false},
      {"type":"ByteLevel","add_prefix_space":true,"use_regex":true}]})",
                     "ab1 C"),
              ElementsAre(" ab", " 1", " C"));
}

TEST(PreTokenizer, RefusesWhatItDoesNotKnowByName) {
  EXPECT_THAT(Pieces(R"({"type":"UnicodeScripts"})", "a")[0], HasSubstr("UnicodeScripts"));
  EXPECT_THAT(Pieces(R"({"type":"Sequence","pretokenizers":[{"type":"ByteLevel"},
      {"type":"Digits"}]})",
                     "a")[0],
              HasSubstr("Digits after ByteLevel"));
  EXPECT_THAT(Pieces(R"({"type":"Split","pattern":{"Regex":"("},"behavior":"Isolated"})", "a")[0],
              HasSubstr("pre_tokenizer.pattern.Regex"));
}

std::vector<std::string> CutInto(std::vector<AddedToken> tokens, absl::string_view text,
                                 bool with_special = true) {
  for (size_t i = 0; i < tokens.size(); ++i) tokens[i].id = static_cast<int32_t>(i);
  const auto added = AddedTokens::Create(std::move(tokens), Normalizer());
  if (!added.ok()) return {added.status().ToString()};
  std::vector<AddedTokens::Part> parts;
  added->Cut(text, /*normalized=*/false, with_special, &parts);
  std::vector<std::string> out;
  for (const auto& part : parts) {
    out.push_back(
        absl::StrCat(part.id, ":", text.substr(part.span.begin, part.span.end - part.span.begin)));
  }
  return out;
}

AddedToken Token(const char* content) {
  AddedToken token;
  token.content = content;
  return token;
}

TEST(AddedTokens, AreFoundLeftmostAndLongest) {
  EXPECT_THAT(CutInto({Token("ab"), Token("abc"), Token("bcd")}, "xabcd abab"),
              ElementsAre("-1:x", "1:abc", "-1:d ", "0:ab", "0:ab"));
}

TEST(AddedTokens, KeepToWordBorders) {
  AddedToken word = Token("on");
  word.single_word = true;
  EXPECT_THAT(CutInto({word}, "on one ton on"), ElementsAre("0:on", "-1: one ton ", "0:on"));
}

TEST(AddedTokens, TakeTheSpaceBesideThem) {
  AddedToken left = Token("<l>"), right = Token("<r>");
  left.lstrip = true;
  right.rstrip = true;
  EXPECT_THAT(CutInto({left, right}, "a \u3000<l> <r> \nb"),
              ElementsAre("-1:a", "0: \u3000<l>", "-1: ", "1:<r> \n", "-1:b"));
}

TEST(AddedTokens, StayTextWhereSpecialOnesAreNotAskedFor) {
  AddedToken special = Token("<s>");
  special.special = true;
  EXPECT_THAT(CutInto({special, Token("x")}, "<s>x", false), ElementsAre("-1:<s>", "1:x"));
}

TEST(AddedTokens, RefuseEmptyDoubleAndOverlongContents) {
  EXPECT_THAT(CutInto({Token("")}, "")[0], HasSubstr("added_tokens[0].content"));
  EXPECT_THAT(CutInto({Token("a"), Token("a")}, "")[0], HasSubstr("twice"));
  EXPECT_THAT(CutInto({Token(std::string(2000, 'a').c_str())}, "")[0], HasSubstr("2000 bytes"));
}

}  // namespace
}  // namespace gatefold
